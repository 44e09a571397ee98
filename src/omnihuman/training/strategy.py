"""From the group `compute` to Lightning: one process, or DeepSpeed's ZeRO over ranks of GPUs or of processors."""

import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.precision import DeepSpeedPrecision
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy

from omnihuman.config.schema.compute import Compute
from omnihuman.config.schema.stage import Training
from omnihuman.errors import UserError
from omnihuman.training.ranks import Ranks

ZERO_STAGES = {"zero2": 2, "zero3": 3}
_BUCKET = 50_000_000
"""Elements that are reduced or gathered at once: 100 MB in bfloat16."""


class ZeroPrecision(DeepSpeedPrecision):
    """DeepSpeed's precision for a training step that takes dataclasses and runs under autocast.

    Weights and gradients are of the lower precision, their master is float32. Inputs stay as they are: sigma and the
    target lose too much in bfloat16.
    """

    def __init__(self, precision: Any, device_type: str) -> None:
        super().__init__(precision)
        self._device_type = device_type

    def convert_input(self, data: Any) -> Any:
        """Nothing: autocast does."""
        return data

    def forward_context(self) -> AbstractContextManager:
        """Autocast where weights are not float32."""
        if self._desired_dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self._device_type, self._desired_dtype)

    def backward(self, tensor: Any, model: Any, optimizer: Any, *args: Any, **kwargs: Any) -> None:
        """Without DeepSpeed's division by the number of micro-steps, since Lightning has already divided."""
        super().backward(tensor, model, optimizer, *args, scale_wrt_gas=False, **kwargs)


class Zero(DeepSpeedStrategy):
    """DeepSpeed, with an optimizer that is after a load what it was before the save."""

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """As the parent's.

        From a checkpoint for any number of ranks, DeepSpeed 0.19 gives under ZeRO-3 every group of parameters the first
        one's weight decay, and all one and the same counter of steps, so that each step counts once for each group.
        """
        optimizer: torch.optim.Optimizer = self.deepspeed_engine.optimizer.optimizer
        fixed = [
            {key: value for key, value in group.items() if key not in ("params", "lr")}
            for group in optimizer.param_groups
        ]
        loaded = super().load_checkpoint(checkpoint_path, weights_only)
        for group, own in zip(optimizer.param_groups, fixed, strict=True):
            group.update(own)
        for state in optimizer.state.values():
            if isinstance(state.get("step"), torch.Tensor):
                state["step"] = state["step"].clone()
        return loaded


class ProcessorZero(Zero):
    """ZeRO on ranks of the processor, by gloo; Lightning refuses any accelerator but CUDA."""

    @property
    def root_device(self) -> torch.device:
        """With an index, which DeepSpeed hands on as the device's rank."""
        return torch.device("cpu", self.local_rank)

    def setup_environment(self) -> None:
        """As the parent's without its check of the accelerator."""
        DDPStrategy.setup_environment(self)

    def setup_distributed(self) -> None:
        """As the parent's without its check of GPU numbers, and by gloo alone.

        DeepSpeed's operator for shared memory would be compiled for a minute at its first use.
        """
        import deepspeed

        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        self.set_world_ranks()
        self._init_deepspeed_distributed()


def keeps_unchanged_apart(compute: Compute) -> bool:
    """Whether checkpoints hold what no step changes in a file of its own, in float32.

    DeepSpeed stores only what trains from its float32 master.
    """
    return compute.strategy in ZERO_STAGES


def check_ranks(compute: Compute, training: Training, ranks: Ranks, num_clips: int) -> None:
    """Refuses what cannot run, before a GPU is touched.

    Raises:
        UserError: a GPU is asked for and absent, or there are more ranks than one process, samples or clips.
    """
    if compute.accelerator == "cuda" and torch.cuda.device_count() < ranks.local_size:
        raise UserError(
            f"compute.accelerator is cuda, but here are {torch.cuda.device_count()} GPUs for {ranks.local_size}"
            " process(es): start fewer, or set compute.accelerator to cpu"
        )
    if compute.strategy == "single" and ranks.size > 1:
        raise UserError(
            f"compute.strategy is single, but {ranks.size} processes were started: set compute.strategy to zero2, or"
            " start one process"
        )
    per_step = training.global_batch_size // compute.accumulate
    if ranks.size > per_step:
        raise UserError(
            f"training.global_batch_size is {training.global_batch_size}, in {compute.accumulate} micro-step(s)"
            f" (compute.accumulate): {per_step} sample(s) at once for {ranks.size} ranks; start at most {per_step}"
            " ranks, or change either key"
        )
    if ranks.size > num_clips:
        raise UserError(
            f"{ranks.size} ranks for {num_clips} training clip(s): start at most {num_clips} ranks, or encode more"
        )


def trains_on_gpu(compute: Compute) -> bool:
    """Whether weights and packs go to a GPU."""
    return compute.accelerator == "cuda" or (compute.accelerator == "auto" and torch.cuda.is_available())


def trainer_arguments(
    compute: Compute, training: Training, ranks: Ranks, *, from_universal: bool = False
) -> dict[str, Any]:
    """The arguments of `lightning.Trainer` that say where and how a stage is computed.

    Args:
        from_universal: the checkpoint to go on from fits any number of ranks, see `zero.reshard`.
    """
    on_gpu = trains_on_gpu(compute)
    arguments: dict[str, Any] = {
        "accelerator": "cuda" if on_gpu else "cpu",
        "accumulate_grad_batches": compute.accumulate,
        "gradient_clip_val": training.gradient_clip,
        "use_distributed_sampler": False,  # every rank draws its own share
    }
    if compute.strategy == "single":
        return {**arguments, "devices": 1, "precision": training.precision}
    strategy = _zero(compute, training, on_gpu, ranks)
    assert isinstance(strategy.config, dict)
    strategy.config |= {"zero_force_ds_cpu_optimizer": False, "checkpoint": {"load_universal": from_universal}}
    nodes = ranks.size // ranks.local_size
    return {**arguments, "strategy": strategy, "devices": ranks.local_size, "num_nodes": nodes}


def _zero(compute: Compute, training: Training, on_gpu: bool, ranks: Ranks) -> Zero:
    options: dict[str, Any] = {
        "stage": ZERO_STAGES[compute.strategy],
        "offload_optimizer": compute.offload in ("optimizer", "all"),
        "offload_parameters": compute.offload == "all",
        "allgather_bucket_size": _BUCKET,
        "reduce_bucket_size": _BUCKET,
        "overlap_comm": on_gpu,
        "logging_batch_size_per_gpu": 1,  # a pack has no one size
        "precision_plugin": ZeroPrecision(training.precision, "cuda" if on_gpu else "cpu"),
    }
    if on_gpu:
        return Zero(**options)
    os.environ.update(DS_ACCELERATOR="cpu", LOCAL_SIZE=str(ranks.local_size))
    return ProcessorZero(process_group_backend="gloo", **options)
