"""A trained model on disk: safetensors beside a JSON that says what it is."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from omnihuman.config.schema.model import Model
from omnihuman.data.shards import Encoders
from omnihuman.errors import UserError
from omnihuman.model.omnihuman import OmniHumanTransformer
from omnihuman.storage.files import publish

WEIGHTS = "model.safetensors"
DESCRIPTION = "model.json"
UNKNOWN_ENCODER = "unknown"
"""Stands for an encoder that the base needs and the configuration did not name."""


@dataclass(frozen=True)
class ModelDescription:
    """What one needs to rebuild a model and to know where it came from."""

    stage: str
    parent: str
    note: str
    """One sentence for people, e.g. why a stage passed its parent's weights on."""
    num_steps: int
    modalities: tuple[str, ...]
    """What this stage and those before it were trained on."""
    num_clips: dict[str, int]
    """Training clips eligible for each modality."""
    model: Model
    encoders: Encoders
    source_sha256: dict[str, str] = field(default_factory=dict)
    """Of an imported base: the files that its tensors came from."""
    parameters: dict[str, int] = field(default_factory=dict)
    """How many the stage trained and how many it left frozen."""
    midstream_share: float = 0.0
    """`training.midstream_share` of the stage; above 0 the model can continue a stream of latents."""


def save_model(
    folder: Path,
    model: OmniHumanTransformer,
    description: ModelDescription,
    dtype: torch.dtype | None = torch.float32,
) -> None:
    """Publishes weights, then the description, into an existing folder.

    Args:
        dtype: of every tensor on disk; None keeps each tensor's own, as for an imported base.
    """
    save_weights(folder, model.state_dict(), dtype)
    save_description(folder, description)


def save_weights(folder: Path, weights: Mapping[str, torch.Tensor], dtype: torch.dtype | None = torch.float32) -> None:
    """Publishes the tensors of a model, of `dtype` or each of its own."""
    kept = {name: tensor.detach().to("cpu", dtype or tensor.dtype).contiguous() for name, tensor in weights.items()}
    with publish(folder / WEIGHTS) as temporary:
        save_file(kept, temporary)


def save_description(folder: Path, description: ModelDescription) -> None:
    """Publishes what a model is."""
    with publish(folder / DESCRIPTION) as temporary:
        temporary.write_text(json.dumps(asdict(description), indent=2) + "\n")


def load_model(folder: Path) -> tuple[OmniHumanTransformer, ModelDescription]:
    """Rebuilds a model in float32 and evaluation mode.

    Raises:
        UserError: a file is missing, the weights do not fit the description, or nobody knows the model's encoders.
    """
    description = load_description(folder)
    if UNKNOWN_ENCODER in (description.encoders.video_codec, description.encoders.text_encoder):
        raise UserError(
            f"{folder} was imported with --allow-other-encoders, so that nothing can encode for it: set"
            " encode.video_codec and encode.text_encoder to those of the base, then import it again"
        )
    model = OmniHumanTransformer(description.model, description.encoders.widths)
    try:
        model.load_state_dict(load_file(folder / WEIGHTS))
    except (RuntimeError, SafetensorError) as error:
        raise UserError(f"{folder / WEIGHTS} does not fit {DESCRIPTION}: {error}") from error
    if broken := [name for name, tensor in model.state_dict().items() if not tensor.isfinite().all()]:
        raise UserError(
            f"{folder / WEIGHTS} holds values that are infinite or not a number, in {len(broken)} tensors, first"
            f" {', '.join(broken[:5])}: take an earlier checkpoint"
        )
    return model.eval(), description


def load_description(folder: Path) -> ModelDescription:
    """What the model in a folder is.

    Raises:
        UserError: a file is missing, or the description is not of this version.
    """
    for name in (WEIGHTS, DESCRIPTION):
        if not (folder / name).is_file():
            raise UserError(f"{folder / name} is missing: train the model first, or name a folder that holds one")
    return read_description(folder / DESCRIPTION)


def read_description(path: Path) -> ModelDescription:
    """The description alone.

    Raises:
        UserError: it is not of this version.
    """
    try:
        raw = json.loads(path.read_text())
        config = Model(**{**raw["model"], "rope_axes": tuple(raw["model"]["rope_axes"])})
        built = {"model": config, "encoders": Encoders.of(raw["encoders"]), "modalities": tuple(raw["modalities"])}
        return ModelDescription(**{**raw, **built})
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} does not describe a model of this version: {error}") from error
