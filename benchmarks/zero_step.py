"""One training step under ZeRO-2 on one rank, as a stage takes it: StageModule, Lightning, DeepSpeed, clipping, AdamW.

`python benchmarks/zero_step.py` measures one way in a process of its own, since what is left of an engine that ran out
of memory stays until its process ends; `model_gpu.py` calls it for each. Every condition is on, and the pack lies
ready: no data is read, nothing saved. `--device cpu --size tiny` tries the code; its figures mean nothing.
"""

import argparse
import json
import logging
import os
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader

from bases import CONFIGS, WIDTHS, Shape, make_input, make_omnihuman
from measure import synchronize
from omnihuman.batch import Pack, TrainingBatch
from omnihuman.config.schema.compute import Compute
from omnihuman.config.schema.diffusion import Diffusion
from omnihuman.config.schema.stage import Training
from omnihuman.model.flops import omnihuman_flops
from omnihuman.model.memory import checkpoint_activations, compile_blocks
from omnihuman.training.module import StageModule
from omnihuman.training.ranks import Ranks
from omnihuman.training.strategy import trainer_arguments
from omnihuman.training.watch import LossWatch

WARM_UP = 3  # the first step compiles, the next ones fill the allocator's cache
OUT_OF_MEMORY = 3
"""Exit code."""
OFFLOADS = ("none", "optimizer")
_SECONDS = 500
"""That one way may take; a piece of the GPU's part has nine minutes."""


class Finite:
    """In the place of the watch over a real stage's losses."""

    def judge(self, before: list[float], loss: float, micro_losses: list[float]) -> None:
        assert torch.isfinite(torch.tensor(loss)), f"the loss is {loss}: the step that was measured is no step"


class Clock(pl.Callback):
    """The end of each step, when the GPU has done with it."""

    def __init__(self, device: torch.device) -> None:
        self._device, self.moments = device, [time.perf_counter()]

    def on_train_batch_end(self, *_: Any) -> None:
        synchronize(self._device)
        self.moments.append(time.perf_counter())
        if len(self.moments) == WARM_UP + 1 and self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()


def pack_of(size: str, shape: Shape) -> Pack:
    """Random samples of one size, on the processor."""
    given = make_input(
        size, (shape.num_latents, shape.height, shape.width), shape.text_lengths, torch.device("cpu"), torch.float32
    )
    noise = torch.randn(given.noisy.shape, generator=torch.Generator().manual_seed(3))
    return (TrainingBatch(given.noisy, noise, given.sigma, given.conditions),)


def measure(
    size: str, shape: Shape, device: torch.device, checkpointing: str, offload: str, compiled: bool, steps: int
) -> dict[str, object]:
    """Median seconds of a step, its operations a second, and the most memory that tensors held at one time."""
    compute = Compute(accelerator=device.type, strategy="zero2", offload=offload)
    training = Training(global_batch_size=shape.batch, precision="bf16-mixed", warmup_steps=1)
    ranks = Ranks.from_environment()
    ranks.connect()
    model = make_omnihuman(size, torch.device("cpu"), torch.float32).train()
    checkpoint_activations(model, checkpointing)
    if compiled:
        compile_blocks(model)
    num_steps = WARM_UP + steps
    module = StageModule(model, training, Diffusion(), 1e-6, num_steps, cast(LossWatch, Finite()), ranks)
    clock = Clock(device)
    trainer = pl.Trainer(
        max_steps=num_steps, max_epochs=-1, logger=False, callbacks=[clock], enable_checkpointing=False,
        enable_model_summary=False, enable_progress_bar=False, **trainer_arguments(compute, training, ranks),
    )  # fmt: skip
    trainer.fit(module, DataLoader([pack_of(size, shape)] * num_steps, batch_size=None))
    seconds = [end - start for start, end in zip(clock.moments, clock.moments[1:], strict=False)][WARM_UP:]
    grids = [(shape.num_latents, shape.height, shape.width)] * shape.batch
    on_gpu = device.type == "cuda"
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "seconds": statistics.median(seconds),
        "steps": steps,
        "training_flops": omnihuman_flops(
            CONFIGS[size], WIDTHS[size], grids, shape.text_lengths, trains=lambda name: True
        ),
        "peak_bytes": torch.cuda.max_memory_allocated() if on_gpu else None,
        "reserved_bytes": torch.cuda.max_memory_reserved() if on_gpu else None,
    }


def first_that_fits(
    size: str, shapes: list[Shape], device: torch.device, checkpointing: str, steps: int, peak_flops: float
) -> dict[str, object]:
    """The figures of the largest shape that fits, with the optimizer's state on the GPU where it can be.

    Raises:
        torch.cuda.OutOfMemoryError: nothing fits.
        RuntimeError: a step failed otherwise, or took too long.
    """
    too_large: list[str] = []
    for shape in shapes:
        for offload in OFFLOADS:
            found = _in_a_process(size, shape, device, checkpointing, offload, steps)
            if found is not None:
                mfu = found["training_flops"] / found["seconds"] / peak_flops
                ways = {"shape": str(shape), "strategy": "zero2", "ranks": 1, "precision": "bf16-mixed"}
                ways |= {"checkpointing": checkpointing, "offload": offload, "compiled": device.type == "cuda"}
                return {**ways, **found, "mfu": mfu, "did_not_fit": too_large}
            too_large.append(f"{shape}, offload {offload}")
    raise torch.cuda.OutOfMemoryError(f"checkpointing {checkpointing}: {'; '.join(too_large)} did not fit")


def _in_a_process(
    size: str, shape: Shape, device: torch.device, checkpointing: str, offload: str, steps: int
) -> dict[str, Any] | None:
    """None where memory does not hold it."""
    command = [sys.executable, str(Path(__file__)), "--size", size, "--device", device.type, "--offload", offload]
    command += ["--checkpointing", checkpointing, "--steps", str(steps)]
    numbers = (shape.batch, shape.num_latents, shape.height, shape.width, shape.num_text)
    command += ["--shape", ",".join(map(str, numbers)), *(["--compile"] if device.type == "cuda" else [])]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"{' '.join(command)} took more than {_SECONDS} s") from error
    if done.returncode == OUT_OF_MEMORY:
        return None
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def alone() -> dict[str, str]:
    """The environment of the only rank of a run, as torchrun makes it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "benchmark"}
    return address | dict.fromkeys(("RANK", "LOCAL_RANK"), "0") | dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), "1")


def main() -> int:
    """Measures one way and prints a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=CONFIGS, default="2b")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--shape", type=Shape.parse, default=Shape(1, 8, 64, 64, 256))
    parser.add_argument("--checkpointing", choices=("none", "selective", "full"), default="none")
    parser.add_argument("--offload", choices=OFFLOADS, default="none")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--steps", type=int, default=9, help=f"after {WARM_UP} that do not count")
    given = parser.parse_args()
    if given.device == "cuda" and not torch.cuda.is_available():
        print("not measured: no GPU")
        return 0
    for name in ("lightning.pytorch", "torch._dynamo"):
        logging.getLogger(name).setLevel(logging.ERROR)
    os.environ |= alone()
    device = torch.device(given.device)
    try:
        found = measure(given.size, given.shape, device, given.checkpointing, given.offload, given.compile, given.steps)
    except torch.cuda.OutOfMemoryError:
        return OUT_OF_MEMORY
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
