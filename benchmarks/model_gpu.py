"""The GPU part, in pieces of less than nine minutes, the most valuable first.

Each piece writes one line of JSON to build/bench-gpu/PIECE.json and is skipped where that is there; delete it to
measure anew. Without a GPU each piece says "not measured". `--device cpu --size tiny` tries the code; its figures mean
nothing.

MFU: three times the operations of a forward pass (`omnihuman.model.flops`: real lengths, no padding, nothing that is
computed again) over the time of a training step and the dense bf16 peak. Goal 50%.
"""

import argparse
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path

import torch

import model_against_diffusers
import packing
import zero_step
from bases import CONFIGS, WIDTHS, Shape, base_calls, default_dtype, make_bases, make_input, make_omnihuman
from measure import Ratio, machine, median_seconds, peak_bytes, rounded, time_shares
from model_against_diffusers import step_of
from omnihuman.model.flops import SampleLengths, base_flops, omnihuman_flops
from omnihuman.model.memory import checkpoint_activations, compile_blocks

PEAK_FLOPS = 989e12
"""Dense bf16 of H100 and H200 (SXM), without sparsity."""
MFU_GOAL = 0.5
FOLDER = Path("build/bench-gpu")
# 8,192 video tokens; where memory does not hold a training step, half of them.
SHAPES = {"2b": [Shape(1, 8, 64, 64, 256), Shape(1, 4, 64, 64, 256)], "tiny": [Shape(1, 2, 4, 4, 8)]}
MIXES = {"2b": (8, 48, 8, 256), "tiny": (3, 4, 3, 8)}  # samples, longest side, latent frames, text tokens
REPETITIONS = {"2b": (15, 9), "tiny": (2, 2)}  # forward passes, training steps

Result = dict[str, object]


def base(size: str, shape: Shape, device: torch.device, compiled: bool) -> Result:
    """Forward and training step of the bare base against diffusers, memory, MFU and where the time goes."""
    dtype, config, widths = torch.bfloat16, CONFIGS[size], WIDTHS[size]
    bases = make_bases(size, device, dtype)
    if compiled:
        model_against_diffusers.compile_both(bases)
    result = model_against_diffusers.compare(bases, size, shape, device, dtype, REPETITIONS[size])
    lengths = [SampleLengths(shape.num_tokens(config.patch_size), text) for text in shape.text_lengths]
    flops = 3 * base_flops(config, widths.latent_channels, widths.text_width, lengths)
    step = result["training_step"]
    assert isinstance(step, Ratio)
    result |= {"training_flops": flops, "mfu": flops / step.seconds / PEAK_FLOPS}
    calls = base_calls(bases, size, shape, device, dtype)
    for name, model, call in zip(("ours", "diffusers"), (bases.ours, bases.theirs), calls, strict=True):
        if model is not None and call is not None:
            result[f"time_of_{name}"] = time_shares(step_of(model, call), device)
    return result | {"goal_over_diffusers": 1.0 if compiled else 1.3}


def training(size: str, shape: Shape, device: torch.device, compiled: bool) -> Result:
    """MFU of our whole model with every condition on, as the trainer has it: blocks compiled, fused AdamW apart."""
    grid = (shape.num_latents, shape.height, shape.width)
    for checkpointing in ("none", "selective", "full"):
        try:
            found = _training(size, grid, shape.text_lengths, device, compiled, checkpointing)
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
            continue
        return found | {"checkpointing": checkpointing, "goal": MFU_GOAL}
    raise torch.cuda.OutOfMemoryError(f"{shape}: not even with full activation checkpointing")


def _training(
    size: str, grid: tuple[int, int, int], text: list[int], device: torch.device, compiled: bool, checkpointing: str
) -> Result:
    model = make_omnihuman(size, device, torch.bfloat16)
    checkpoint_activations(model, checkpointing)
    if compiled:
        torch.compiler.reset()
        compile_blocks(model)
    given = make_input(size, grid, text, device, torch.bfloat16)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)

    @default_dtype(torch.bfloat16)
    def gradients() -> None:
        model(given.noisy, given.sigma, given.conditions).square().mean().backward()

    def step() -> None:
        gradients()
        model.zero_grad(set_to_none=True)

    repetitions = REPETITIONS[size][1]
    apart = median_seconds(step, repetitions, device)
    memory = peak_bytes(step, device) if device.type == "cuda" else None
    shares = time_shares(step, device, 12)
    gradients()
    with_optimizer = apart + median_seconds(optimizer.step, repetitions, device)
    flops = omnihuman_flops(CONFIGS[size], WIDTHS[size], [grid] * len(text), text, trains=lambda name: True)
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "seconds": apart,
        "seconds_with_adamw": with_optimizer,
        "peak_bytes_without_adamw": memory,
        "training_flops": flops,
        "mfu": flops / apart / PEAK_FLOPS,
        "mfu_with_adamw": flops / with_optimizer / PEAK_FLOPS,
        "time_of_ours": shares,
    }


def packed(size: str, device: torch.device) -> Result:
    """One pack of native sizes against padding and buckets; what lies between blocks is computed again in all."""
    num_samples, side, latents, text = MIXES[size]
    mix = packing.draw_mix(num_samples, side, latents)
    result = packing.compare(size, mix, text, device, torch.bfloat16, REPETITIONS[size][1], "full")
    return result | {"mix": [list(native) for native in mix], "goal_padding_over_pack": packing.SPEED_GOAL}


def under_zero2(size: str, device: torch.device, checkpointing: str) -> Result:
    """A whole step of a stage with `compute: zero2` on one rank; says where the optimizer's state did not fit."""
    steps = REPETITIONS[size][1]
    found = zero_step.first_that_fits(size, SHAPES[size], device, checkpointing, steps, PEAK_FLOPS)
    return found | {"goal": MFU_GOAL}


def pieces(size: str, device: torch.device) -> dict[str, Callable[[], Result]]:
    """By name, the most valuable first."""

    def at_some_shape(measure: Callable[..., Result], compiled: bool) -> Callable[[], Result]:
        return lambda: _largest_that_fits(measure, size, device, compiled)

    return {
        "base-eager": at_some_shape(base, False),
        "base-compiled": at_some_shape(base, True),
        "training-compiled": at_some_shape(training, True),
        "zero2-none": lambda: under_zero2(size, device, "none"),
        "zero2-selective": lambda: under_zero2(size, device, "selective"),
        "zero2-full": lambda: under_zero2(size, device, "full"),
        "packing": lambda: packed(size, device),
        "training-eager": at_some_shape(training, False),
    }


def _largest_that_fits(measure: Callable[..., Result], size: str, device: torch.device, compiled: bool) -> Result:
    *larger, last = SHAPES[size]
    for shape in larger:
        try:
            return {"shape": str(shape)} | measure(size, shape, device, compiled)
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
            print(f"  {shape} does not fit into memory", flush=True)
    return {"shape": str(last)} | measure(size, last, device, compiled)


def main() -> None:
    """Measures the pieces that are missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SHAPES, default="2b")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--piece", action="append", help="only this one; several times: these; default: all")
    given = parser.parse_args()
    device = torch.device(given.device)
    logging.getLogger("torch._dynamo").setLevel(logging.ERROR)
    every = pieces(given.size, device)
    unknown = set(given.piece or ()) - set(every)
    if unknown:
        parser.error(f"no piece is called {', '.join(sorted(unknown))}; there are {', '.join(every)}")
    for name in given.piece or every:
        path = given.folder / f"{name}.json"
        if path.exists():
            print(f"{name}: measured before, in {path}")
        elif device.type == "cuda" and not torch.cuda.is_available():
            print(f"{name}: not measured: no GPU")
        else:
            _measure(name, every[name], path, device, given.size)


def _measure(name: str, piece: Callable[[], Result], path: Path, device: torch.device, size: str) -> None:
    start = time.perf_counter()
    try:
        found = piece()
    except torch.cuda.OutOfMemoryError as error:
        print(f"{name}: not measured: {error}", flush=True)
        return
    config = CONFIGS[size]
    blocks = (config.num_dual_blocks, config.num_single_blocks, config.num_decoder_blocks)
    head = {
        "piece": name, "machine": machine(device), "dtype": "bfloat16", "size": size, "width": config.width,
        "heads": config.num_heads, "dual_single_decoder_blocks": list(blocks), "peak_flops": PEAK_FLOPS,
        "took_seconds": time.perf_counter() - start,
    }  # fmt: skip
    line = json.dumps(rounded(head | found))
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    unfinished.write_text(line + "\n", encoding="utf-8")
    unfinished.rename(path)
    print(f"{name}: {line}", flush=True)


if __name__ == "__main__":
    main()
