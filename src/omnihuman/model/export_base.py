"""Export of a checkpoint's base in the published layout, which diffusers' `from_pretrained` reads."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import split_state_dict_into_shards_factory
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from omnihuman.errors import UserError
from omnihuman.model.checkpoint import WEIGHTS, ModelDescription, load_description
from omnihuman.model.import_base import CONDITIONS, check_new
from omnihuman.model.published import published_config, published_name
from omnihuman.model.published_check import BaseShape
from omnihuman.model.published_files import CONFIG, file_headers
from omnihuman.model.published_files import WEIGHTS as PUBLISHED_WEIGHTS
from omnihuman.storage.files import publish_folder

_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
_BASE = "base."
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Exported:
    """What an export wrote."""

    num_tensors: int
    num_files: int
    num_conditions: int  # our tensors
    with_conditions: bool


def export_base(
    checkpoint: Path, out: Path, *, max_shard_gigabytes: float = 10.0, with_conditions: bool = False
) -> Exported:
    """Writes the base of a checkpoint of ours as a folder in diffusers' layout, each tensor in its own precision.

    Args:
        checkpoint: folder with model.safetensors and model.json.
        out: a folder that does not exist yet, or is empty.
        max_shard_gigabytes: above this the weights are split, behind an index.
        with_conditions: writes our tensors beside it, where `import_base` finds them again.

    Raises:
        UserError: the checkpoint is missing or damaged, or is not one that the published class can run.
    """
    check_new(out)
    if max_shard_gigabytes <= 0:
        raise UserError(f"--max-shard-gigabytes is {max_shard_gigabytes:g}: set it above 0")
    description = load_description(checkpoint)
    config, widths = description.model, description.encoders.widths
    if config.prediction != "velocity":
        raise UserError(
            f"{checkpoint} predicts model.prediction={config.prediction}; the published class has `velocity` only, so"
            " that its output would mean nothing: train with model.prediction=velocity"
        )
    headers = dict(file_headers(checkpoint / WEIGHTS))
    shape = BaseShape(config, widths.latent_channels, widths.text_width)
    names = {published_name(name, config): _BASE + name for name in shape.on_meta().state_dict()}
    if missing := [name for name in names.values() if name not in headers]:
        raise UserError(f"{checkpoint / WEIGHTS} does not fit model.json: {len(missing)} missing, e.g. {missing[0]}")
    sizes = {}
    for published, ours in names.items():
        values = 1
        for size in headers[ours].shape:
            values *= size
        sizes[published] = values * _BYTES[headers[ours].dtype]
    split = split_state_dict_into_shards_factory(
        sizes,
        get_storage_size=lambda size: size,
        filename_pattern=PUBLISHED_WEIGHTS + "{suffix}.safetensors",
        max_shard_size=int(max_shard_gigabytes * 1e9),
    )
    others = [name for name in headers if not name.startswith(_BASE)]
    with publish_folder(out) as folder:
        published = published_config(config, widths.latent_channels, widths.text_width)
        (folder / CONFIG).write_text(json.dumps(published, indent=2) + "\n", encoding="utf-8")
        for name, tensors in split.filename_to_tensors.items():
            _copy(checkpoint, folder / name, {published: names[published] for published in tensors}, {})
        if split.is_sharded:
            index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
            path = folder / f"{PUBLISHED_WEIGHTS}.safetensors.index.json"
            path.write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        if with_conditions:
            _copy(checkpoint, folder / CONDITIONS, {name: name for name in others}, _metadata(description))
    return Exported(len(names), len(split.filename_to_tensors), len(others), with_conditions)


def _metadata(description: ModelDescription) -> dict[str, str]:
    return {"stage": description.stage, "modalities": ",".join(description.modalities)}


def _copy(checkpoint: Path, path: Path, names: dict[str, str], metadata: dict[str, str]) -> None:
    """Writes tensors of a checkpoint to a file, under new names {new: old}."""
    log.info("writing %s: %d tensors", path.name, len(names))
    try:
        with safe_open(checkpoint / WEIGHTS, framework="pt") as file:
            tensors = {new: file.get_tensor(old) for new, old in names.items()}
            save_file(tensors, path, metadata={"format": "pt"} | metadata)
    except SafetensorError as error:
        raise UserError(f"{checkpoint / WEIGHTS} is damaged: {error}") from error
