"""Moving average of the float32 weights, every rank's own pieces: it survives ZeRO, a resume and another world size."""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from omnihuman.errors import UserError
from omnihuman.training.ranks import Ranks

_STARTS, _LENGTHS, _RANKS = "starts", "lengths", "ranks"
"""In each file: where its pieces begin, the length of everything that has an average, and how many files there are."""


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

    def __init__(self, model: nn.Module, decay: float, ranks: Ranks, resume: Path | None) -> None:
        self._model, self._decay, self._ranks, self._resume = model, decay, ranks, resume
        self._average: list[Fragment] = []
        self._averaged: list[tuple[str, nn.Parameter]] = []
        """The parameters of these pieces, found once: to walk through the model costs as much as to average."""
        self._step = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begins with the weights, or where the checkpoint stood.

        Raises:
            UserError: the checkpoint does not hold the whole average.
        """
        self._step = trainer.global_step
        trained = {name: parameter for name, parameter in self._model.named_parameters() if parameter.requires_grad}
        self._average = [
            Fragment(own.name, own.start, own.values.float().clone())
            for own in fragments(self._model, self._ranks.rank)
        ]
        self._averaged = [(own.name, trained[own.name]) for own in self._average]
        if self._resume is not None:
            stored = _stored(self._resume)
            if not stored:
                raise UserError(f"{_file(self._resume, 0)} is missing, so the average cannot go on: {_REMEDY}")
            for own in self._average:
                for other in stored.get(own.name, ()):
                    _copy_overlap(other, own)

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """After the last micro-step of a step."""
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        rank = self._ranks.rank
        now = [own.values.float() for name, p in self._averaged if (own := _fragment(name, p, rank))]
        if not now:  # all that lies on this rank is padding
            return
        average = [own.values for own in self._average]
        torch._foreach_lerp_(average, now, 1 - warmed_up(self._decay, self._step))  # pyright: ignore[reportPrivateImportUsage]

    @property
    def pieces(self) -> list[Fragment]:
        """This rank's."""
        return self._average

    def save(self, folder: Path) -> None:
        """Writes this rank's file into a checkpoint's folder."""
        trained = {name: p for name, p in self._model.named_parameters() if p.requires_grad}
        about = {
            _STARTS: {own.name: own.start for own in self._average},
            _LENGTHS: {name: getattr(p, "ds_numel", p.numel()) for name, p in trained.items()},
            _RANKS: self._ranks.size,
        }
        values = {own.name: own.values.cpu() for own in self._average}
        save_file(values, _file(folder, self._ranks.rank), {key: json.dumps(value) for key, value in about.items()})


_REMEDY = "take an earlier checkpoint"


def _file(folder: Path, rank: int) -> Path:
    return folder / f"ema-{rank:05d}.safetensors"


@dataclass(frozen=True)
class _Stored:
    file: Any
    name: str
    start: int
    length: int

    def read(self, first: int, last: int) -> Tensor:
        return self.file.get_slice(self.name)[first:last]


def _stored(folder: Path) -> dict[str, list[_Stored]]:
    """The pieces of each parameter in a checkpoint's folder, which cover it; nothing where there is no average."""
    pieces: dict[str, list[_Stored]] = defaultdict(list)
    lengths: dict[str, int] = {}
    for path in sorted(folder.glob("ema-*.safetensors")):
        file = safe_open(path, "pt")
        about = {key: json.loads(value) for key, value in file.metadata().items()}
        if not {_LENGTHS, _RANKS} <= about.keys():
            raise UserError(f"{path} was written by another version of omnihuman: begin the stage again")
        lengths = about[_LENGTHS]
        for rank in range(about[_RANKS]):
            if not _file(folder, rank).is_file():
                raise UserError(f"{_file(folder, rank)} is missing, of {about[_RANKS]} ranks' averages: {_REMEDY}")
        for name, start in about[_STARTS].items():
            pieces[name].append(_Stored(file, name, start, file.get_slice(name).get_shape()[0]))
    _check_cover(folder, pieces, lengths)
    return pieces


def _check_cover(folder: Path, pieces: Mapping[str, list[_Stored]], lengths: Mapping[str, int]) -> None:
    """Raises `UserError` where elements of a parameter lie in no piece."""
    for name, length in lengths.items():
        known = 0
        for piece in sorted(pieces.get(name, ()), key=lambda piece: piece.start):
            if piece.start > known:
                break
            known = max(known, piece.start + piece.length)
        if known < length:
            raise UserError(
                f"{folder}: no ema-*.safetensors holds the average of {name} from element {known} on, of {length}:"
                f" {_REMEDY}"
            )


def _copy_overlap(stored: _Stored, own: Fragment) -> None:
    first = max(stored.start, own.start)
    last = min(stored.start + stored.length, own.start + len(own.values))
    if first < last:
        own.values[first - own.start : last - own.start] = stored.read(first - stored.start, last - stored.start)


def averaged_weights(folder: Path, shapes: dict[str, torch.Size]) -> dict[str, Tensor]:
    """The whole average float32 from a checkpoint's folder, of any number of ranks; empty where there is none.

    What is frozen has no average.

    Raises:
        UserError: a rank's file is missing, or elements lie in none.
    """
    whole = {}
    for name, pieces in _stored(folder).items():
        fragment = Fragment(name, 0, torch.empty(shapes[name].numel()))
        for piece in pieces:
            _copy_overlap(piece, fragment)
        whole[name] = fragment.values.reshape(shapes[name])
    return whole
