"""Moving average of the float32 weights, every rank's own pieces: it survives ZeRO, a resume and another world size."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

_STARTS = "starts"


@dataclass(frozen=True)
class Fragment:
    """A piece of a parameter of the float32 master: elements `start` to `start + len(values)` of the flat parameter."""

    name: str
    start: int
    values: Tensor


def fragments(model: nn.Module, rank: int) -> Iterator[Fragment]:
    """The pieces of the master that lie on this rank, of what is trained; without ZeRO, the parameters themselves."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and (own := _fragment(name, parameter, rank)):
            yield own


def _fragment(name: str, parameter: nn.Parameter, rank: int) -> Fragment | None:
    """This rank's piece of one parameter, if any; asked for anew each step, since offloading may move it."""
    if hasattr(parameter, "ds_id"):  # ZeRO-3 cuts each parameter into equal parts, the last of them padded
        from deepspeed.utils import safe_get_local_fp32_param

        local: Any = safe_get_local_fp32_param(parameter)
        start = rank * parameter.ds_tensor.ds_numel  # pyright: ignore[reportAttributeAccessIssue]
        length = min(local.numel(), parameter.ds_numel - start)  # pyright: ignore[reportAttributeAccessIssue]
        return Fragment(name, start, local.detach().flatten()[:length]) if length > 0 else None
    if hasattr(parameter, "_hp_mapping"):  # ZeRO-2 cuts the row of all parameters, wherever that falls
        mapping: Any = parameter._hp_mapping  # pyright: ignore[reportAttributeAccessIssue]
        if mapping is None:
            return None
        return Fragment(name, mapping.lp_fragment_address.start, mapping.get_hp_fragment().detach())
    return Fragment(name, 0, parameter.detach().flatten())


def warmed_up(decay: float, step: int) -> float:
    """The decay after `step` steps: little at first, so that the random beginning is forgotten (as TensorFlow's)."""
    return min(decay, (1 + step) / (10 + step))


class WeightAverage(pl.Callback):
    """Averages after every step, and writes and reads its pieces beside a checkpoint.

    Lightning's own average is dropped by DeepSpeed and does not fit divided weights.
    """

    def __init__(self, model: nn.Module, decay: float, rank: int, resume: Path | None) -> None:
        self._model, self._decay, self._rank, self._resume = model, decay, rank, resume
        self._average: list[Fragment] = []
        self._averaged: list[tuple[str, nn.Parameter]] = []
        """The parameters of these pieces, found once: to walk through the model costs as much as to average."""
        self._step = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begins with the weights, or where the checkpoint stood."""
        self._step = trainer.global_step
        trained = {name: parameter for name, parameter in self._model.named_parameters() if parameter.requires_grad}
        self._average = [
            Fragment(own.name, own.start, own.values.float().clone()) for own in fragments(self._model, self._rank)
        ]
        self._averaged = [(own.name, trained[own.name]) for own in self._average]
        if self._resume is not None:
            stored = list(_stored(self._resume))
            for own in self._average:
                for other in stored:
                    _copy_overlap(other, own)

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """After the last micro-step of a step."""
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        now = [own.values.float() for name, p in self._averaged if (own := _fragment(name, p, self._rank))]
        average = [own.values for own in self._average]
        torch._foreach_lerp_(average, now, 1 - warmed_up(self._decay, self._step))  # pyright: ignore[reportPrivateImportUsage]

    @property
    def pieces(self) -> list[Fragment]:
        """This rank's."""
        return self._average

    def save(self, folder: Path) -> None:
        """Writes this rank's file into a checkpoint's folder."""
        starts = {own.name: own.start for own in self._average}
        values = {own.name: own.values.cpu() for own in self._average}
        save_file(values, folder / f"ema-{self._rank:05d}.safetensors", {_STARTS: json.dumps(starts)})


@dataclass(frozen=True)
class _Stored:
    file: Any
    name: str
    start: int
    length: int

    def read(self, first: int, last: int) -> Tensor:
        return self.file.get_slice(self.name)[first:last]


def _stored(folder: Path) -> Iterator[_Stored]:
    for path in sorted(folder.glob("ema-*.safetensors")):
        file = safe_open(path, "pt")
        for name, start in json.loads(file.metadata()[_STARTS]).items():
            yield _Stored(file, name, start, file.get_slice(name).get_shape()[0])


def _copy_overlap(stored: _Stored, own: Fragment) -> None:
    first = max(stored.start, own.start)
    last = min(stored.start + stored.length, own.start + len(own.values))
    if stored.name == own.name and first < last:
        own.values[first - own.start : last - own.start] = stored.read(first - stored.start, last - stored.start)


def averaged_weights(folder: Path, shapes: dict[str, torch.Size]) -> dict[str, Tensor]:
    """The whole average float32 from a checkpoint's folder, of any number of ranks; empty where there is none.

    What is frozen has no average.
    """
    whole = {}
    for stored in _stored(folder):
        if stored.name not in whole:
            whole[stored.name] = Fragment(stored.name, 0, torch.empty(shapes[stored.name].numel()))
        _copy_overlap(stored, whole[stored.name])
    return {name: fragment.values.reshape(shapes[name]) for name, fragment in whole.items()}
