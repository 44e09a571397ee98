"""Whole weights from a checkpoint of any strategy, and checkpoints for another number of ranks."""

import shutil
from argparse import Namespace
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from os import devnull
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from omnihuman.errors import UserError
from omnihuman.model.checkpoint import DESCRIPTION, ModelDescription, read_description, save_description, save_weights
from omnihuman.model.omnihuman import OmniHumanTransformer
from omnihuman.storage.files import publish_folder
from omnihuman.training.checkpoints import MANIFEST, STATE, damage, link_or_copy, read_manifest, write_manifest
from omnihuman.training.ema import averaged_weights
from omnihuman.training.freezing import UNCHANGED
from omnihuman.training.strategy import ZERO_STAGES

_TAG = "checkpoint"
"""The name that Lightning gives what DeepSpeed writes."""
_UNIVERSAL = "latest_universal"
"""DeepSpeed's file that says which of its checkpoints fits any number of ranks."""
_REMEDY = "take an earlier checkpoint"


def whole_weights(folder: Path) -> tuple[dict[str, Tensor], bool]:
    """The model's tensors in float32 from a checkpoint's folder, and whether they are a moving average.

    What no step changes, frozen parameters and buffers, is never averaged, and is bit by bit what the stage began with.

    Raises:
        UserError: a tensor or a part of the average is missing.
    """
    description = read_description(folder / DESCRIPTION)
    with torch.device("meta"):
        model = OmniHumanTransformer(description.model, description.encoders.widths)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    average = averaged_weights(folder, shapes)
    unchanged = load_file(folder / UNCHANGED) if (folder / UNCHANGED).is_file() else {}
    whole = {**_stored_weights(folder / STATE), **average, **unchanged}
    if missing := sorted(shapes.keys() - whole.keys()):
        raise UserError(f"{folder} lacks {len(missing)} tensors of its model, first {missing[0]}: {_REMEDY}")
    # Flat where DeepSpeed has made them fit any number of ranks, and perhaps padded.
    return {name: whole[name].flatten()[: shape.numel()].reshape(shape) for name, shape in shapes.items()}, bool(
        average
    )


def _stored_weights(state: Path) -> dict[str, Tensor]:
    """What trains, and without ZeRO everything, in float32."""
    if state.is_file():
        stored = torch.load(state, map_location="cpu", weights_only=True, mmap=True)["state_dict"]
    elif (state / _UNIVERSAL).is_file():
        files = {path.name: path / "fp32.pt" for path in (state / _TAG / "zero").iterdir() if path.is_dir()}
        loaded = {name: torch.load(path, map_location="cpu", weights_only=True) for name, path in files.items()}
        stored = {name: of["param"] if isinstance(of, dict) else of for name, of in loaded.items()}
    else:
        from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

        with Path(devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
            stored = get_fp32_state_dict_from_zero_checkpoint(str(state), _TAG, exclude_frozen_parameters=True)
    return {name.removeprefix("model."): tensor.float() for name, tensor in stored.items()}


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
        kept = [path for path in folder.iterdir() if path.is_file() and path.name != MANIFEST]
        for path in kept:
            link_or_copy(path, target / path.name)
        _to_universal(folder / STATE / _TAG, target / STATE / _TAG)
        (target / STATE / _UNIVERSAL).write_text(_TAG)
        known = {path.name: manifest.sha256[path.name] for path in kept}
        write_manifest(target, manifest.step, manifest.strategy, num_ranks=0, known=known)
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
        raise UserError(f"{problem}: {_REMEDY}")
