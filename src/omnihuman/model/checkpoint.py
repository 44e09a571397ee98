"""A trained model on disk: safetensors beside a JSON that says what it is."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from omnihuman.config.schema.model import Model
from omnihuman.data.shards import Encoders
from omnihuman.errors import UserError
from omnihuman.model.omnihuman import OmniHumanTransformer
from omnihuman.storage.files import publish

_WEIGHTS = "model.safetensors"
_DESCRIPTION = "model.json"


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


def save_model(folder: Path, model: OmniHumanTransformer, description: ModelDescription) -> None:
    """Publishes weights, then the description, into an existing folder."""
    weights = {name: tensor.detach().float().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with publish(folder / _WEIGHTS) as temporary:
        save_file(weights, temporary)
    with publish(folder / _DESCRIPTION) as temporary:
        temporary.write_text(json.dumps(asdict(description), indent=2) + "\n")


def load_model(folder: Path) -> tuple[OmniHumanTransformer, ModelDescription]:
    """Rebuilds a model in evaluation mode.

    Raises:
        UserError: a file is missing, or the weights do not fit the description.
    """
    for name in (_WEIGHTS, _DESCRIPTION):
        if not (folder / name).is_file():
            raise UserError(f"{folder / name} is missing: train the model first, or name a folder that holds one")
    try:
        description = _read_description(folder / _DESCRIPTION)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / _DESCRIPTION} does not describe a model of this version: {error}") from error
    model = OmniHumanTransformer(description.model, description.encoders.widths)
    try:
        model.load_state_dict(load_file(folder / _WEIGHTS))
    except (RuntimeError, SafetensorError) as error:
        raise UserError(f"{folder / _WEIGHTS} does not fit {_DESCRIPTION}: {error}") from error
    return model.eval(), description


def _read_description(path: Path) -> ModelDescription:
    raw = json.loads(path.read_text())
    config = Model(**{**raw["model"], "rope_axes": tuple(raw["model"]["rope_axes"])})
    built = {"model": config, "encoders": Encoders(**raw["encoders"]), "modalities": tuple(raw["modalities"])}
    return ModelDescription(**{**raw, **built})
