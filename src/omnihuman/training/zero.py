"""Whole weights from a checkpoint of any strategy, and checkpoints for another number of ranks."""

import shutil
from argparse import Namespace
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from os import devnull
from pathlib import Path

import torch
from torch import Tensor

from omnihuman.errors import UserError
from omnihuman.model.checkpoint import DESCRIPTION, ModelDescription, read_description, save_description, save_weights
from omnihuman.storage.files import publish_folder
from omnihuman.training.checkpoints import MANIFEST, STATE, damage, read_manifest, write_manifest
from omnihuman.training.ema import averaged_weights
from omnihuman.training.strategy import ZERO_STAGES

_TAG = "checkpoint"
"""The name that Lightning gives what DeepSpeed writes."""


def whole_weights(folder: Path) -> tuple[dict[str, Tensor], bool]:
    """The model's tensors in float32 from a checkpoint's folder, and whether they are a moving average.

    Buffers, which no step changes, are never averaged.
    """
    state = folder / STATE
    if state.is_dir():
        from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

        with Path(devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
            stored = get_fp32_state_dict_from_zero_checkpoint(str(state), _TAG)
    else:
        stored = torch.load(state, map_location="cpu", weights_only=True, mmap=True)["state_dict"]
    weights = {name.removeprefix("model."): tensor.float() for name, tensor in stored.items()}
    average = averaged_weights(folder, {name: tensor.shape for name, tensor in weights.items()})
    return {**weights, **average}, bool(average)


def consolidate(folder: Path, target: Path) -> ModelDescription:
    """Writes the model of a checkpoint's folder, as a stage publishes it, into the existing folder `target`.

    Raises:
        UserError: the folder is no checkpoint, or is damaged.
    """
    _check_whole(folder)
    weights, averaged = whole_weights(folder)
    description = read_description(folder / DESCRIPTION)
    if averaged:
        description = replace(description, note="the weights are their moving average (training.ema_decay)")
    save_weights(target, weights)
    save_description(target, description)
    return description


def reshard(folder: Path) -> Path:
    """Puts a checkpoint that any number of ranks can go on from in the place of one that DeepSpeed wrote.

    Takes the memory of one parameter at a time, and the disk of a second checkpoint while it lasts. Its name is the
    old one with `-universal`, so that it counts as the newer until the old one is gone.

    Raises:
        UserError: the folder is damaged, or no rank divided it.
    """
    _check_whole(folder)
    manifest = read_manifest(folder)
    if manifest.num_ranks == 0:
        return folder
    if manifest.strategy not in ZERO_STAGES:
        raise UserError(f"{folder} was written by compute.strategy={manifest.strategy}: one process goes on from it")
    final = folder.with_name(f"{folder.name}-universal")
    with publish_folder(final) as target:
        for path in folder.iterdir():
            if path.is_file() and path.name != MANIFEST:
                shutil.copy2(path, target)
        _to_universal(folder / STATE / _TAG, target / STATE / _TAG)
        (target / STATE / "latest_universal").write_text(_TAG)
        write_manifest(target, manifest.step, manifest.strategy, num_ranks=0)
    shutil.rmtree(folder)
    return final


def _to_universal(source: Path, target: Path) -> None:
    from deepspeed.checkpoint import ds_to_universal

    target.mkdir(parents=True)
    options = {"num_extract_workers": 1, "num_merge_workers": 1, "keep_temp_folder": False, "strict": True}
    arguments = Namespace(input_folder=str(source), output_folder=str(target), inject_missing_state=True, **options)
    with Path(devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        ds_to_universal.main(arguments)


def _check_whole(folder: Path) -> None:
    if problem := damage(folder):
        raise UserError(f"{problem}: take an earlier checkpoint")
