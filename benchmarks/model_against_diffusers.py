"""The base against diffusers' class: same weights, input, dtype and attention, eager and compiled block by block.

A ratio above 1 means that ours is faster; for memory, that ours keeps less. Goal on a CPU: at least 1.0.
"""

import argparse
import logging
from collections.abc import Callable

import torch
from torch import Tensor, nn

from bases import CONFIGS, Bases, Shape, base_calls, make_bases
from measure import Ratio, machine, peak_bytes, ratio, rounded, saved_bytes, time_shares

# One sample whose prompt needs no mask; two samples with prompts of different lengths.
SHAPES = {
    "tiny": [Shape(1, 2, 4, 4, 8), Shape(2, 2, 4, 6, 8, ragged=True)],
    "small": [Shape(1, 5, 16, 16, 32), Shape(2, 3, 12, 20, 32, ragged=True)],
    "2b": [Shape(1, 8, 64, 64, 256)],
}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
GOAL = 1.0


def compare(
    bases: Bases, size: str, shape: Shape, device: torch.device, dtype: torch.dtype, repetitions: tuple[int, int]
) -> dict[str, object]:
    """Ratios of forward pass and training step, and memory; ours alone where diffusers is absent.

    Args:
        repetitions: pairs of forward passes and of training steps.
    """
    ours, theirs = base_calls(bases, size, shape, device, dtype)
    other = theirs or ours  # without diffusers ours against itself shows what the clock makes of equals

    def forward(call: Callable[[], Tensor]) -> Callable[[], Tensor]:
        return torch.no_grad()(call)

    result: dict[str, object] = {"compared": theirs is not None}
    if theirs:
        with torch.no_grad():
            a, b = ours().float(), theirs().float()
        result["largest_difference_over_std"] = ((a - b).abs().max() / b.std()).item()
    result["forward"] = ratio(forward(ours), forward(other), repetitions[0], device)
    steps = step_of(bases.ours, ours), step_of(bases.theirs or bases.ours, other)
    result["training_step"] = ratio(*steps, repetitions[1], device)
    if device.type == "cuda":
        held = [peak_bytes(step, device) for step in steps]
    else:
        weights = {p.untyped_storage().data_ptr() for p in bases.ours.parameters()}
        held = [saved_bytes(call, weights) for call in (ours, other)]
    result["memory"] = {
        "what": "peak of a training step" if device.type == "cuda" else "kept for the backward pass",
        "bytes": held[0],
        "other_bytes": held[1],
        "ratio": held[1] / held[0],
    }
    return result


def step_of(model: nn.Module, forward: Callable[[], Tensor]) -> Callable[[], None]:
    """Forward pass and gradients of a mean square, without an optimizer."""

    def step() -> None:
        forward().square().mean().backward()
        model.zero_grad(set_to_none=True)

    return step


def compile_both(bases: Bases, dynamic: bool | None = True) -> None:
    """Ours as `omnihuman.model.memory.compile_blocks` does it, theirs by diffusers' own method.

    Args:
        dynamic: of ours; the trainer's True allows any length, which diffusers' default does not.
    """
    torch.compiler.reset()
    blocks = [*bases.ours.dual_blocks, *bases.ours.single_blocks, *bases.ours.decoder_blocks]
    for block in blocks:
        block.compile(dynamic=dynamic)
    if bases.theirs is not None:
        bases.theirs.compile_repeated_blocks()  # pyright: ignore[reportCallIssue]


def shown(result: dict[str, object]) -> list[str]:
    """Lines of a report."""
    lines = []
    if "largest_difference_over_std" in result:
        lines.append(f"  outputs differ by at most {result['largest_difference_over_std']:.1e} of their spread")
    for name in ("forward", "training_step"):
        found = result[name]
        assert isinstance(found, Ratio)
        reached = (
            "" if not result["compared"] else f"  goal {GOAL} {'reached' if found.median >= GOAL else 'not reached'}"
        )
        lines.append(f"  {name.replace('_', ' '):<14} diffusers / ours {found}{reached}")
    memory = result["memory"]
    assert isinstance(memory, dict)
    megabytes = [memory[key] / 2**20 for key in ("bytes", "other_bytes")]
    lines.append(
        f"  {'memory':<14} diffusers / ours {memory['ratio']:.3f} ({megabytes[0]:.1f} against {megabytes[1]:.1f} MiB,"
        f" {memory['what']})"
    )
    if not result["compared"]:
        lines.append("  diffusers is not installed: ours against itself, nothing is compared")
    return lines


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=CONFIGS, default="small")
    parser.add_argument("--shape", type=Shape.parse, action="append", help="batch,latents,height,width,text[,ragged]")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--mode", choices=("eager", "compiled"), action="append", help="default: both")
    parser.add_argument("--forwards", type=int, default=9, help="pairs of forward passes")
    parser.add_argument("--steps", type=int, default=7, help="pairs of training steps")
    parser.add_argument("--static", action="store_true", help="compile ours for one shape, as diffusers does")
    parser.add_argument("--profile", action="store_true", help="show where the time of an eager step goes")
    given = parser.parse_args()
    logging.getLogger("torch._dynamo").setLevel(logging.ERROR)
    device, dtype = torch.device(given.device), DTYPES[given.dtype]
    config = CONFIGS[given.size]
    print(
        f"{machine(device)}, {given.dtype}; width {config.width}, {config.num_heads} heads, blocks: "
        f"{config.num_dual_blocks} dual, {config.num_single_blocks} single, {config.num_decoder_blocks} of the decoder"
    )
    for shape in given.shape or SHAPES[given.size]:
        bases = make_bases(given.size, device, dtype)
        for mode in given.mode or ("eager", "compiled"):
            print(f"{shape}, {shape.num_tokens(config.patch_size)} video tokens a sample, {mode}:")
            if mode == "compiled":
                compile_both(bases, dynamic=None if given.static else True)
            result = compare(bases, given.size, shape, device, dtype, (given.forwards, given.steps))
            print("\n".join(shown(result)), flush=True)
            if given.profile:
                show_profiles(bases, given.size, shape, device, dtype)


def show_profiles(bases: Bases, size: str, shape: Shape, device: torch.device, dtype: torch.dtype) -> None:
    """Where the time of a training step goes, in shares."""
    calls = base_calls(bases, size, shape, device, dtype)
    for name, model, call in zip(("ours", "diffusers"), (bases.ours, bases.theirs), calls, strict=True):
        if model is not None and call is not None:
            print(f"  {name}: {rounded(time_shares(step_of(model, call), device, 14))}")


if __name__ == "__main__":
    main()
