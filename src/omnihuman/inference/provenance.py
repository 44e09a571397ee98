"""What a rendered video was made from: NAME.mp4.json beside NAME.mp4."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from omnihuman.errors import UserError
from omnihuman.storage.files import file_sha256, path_sha256, publish

Parameters = Mapping[str, str | int | float]
"""Text, seed, and every key of sampling and render."""
SUFFIX = ".json"


@dataclass(frozen=True)
class ModelIdentity:
    """Which weights; name and version are empty where the model came from a folder instead of the registry."""

    name: str
    version: int | None
    sha256: str


@dataclass(frozen=True)
class Provenance:
    """A sidecar's content. The video's hash says whether it is still the file that was rendered."""

    model: ModelIdentity
    inputs: Mapping[str, str]
    """sha256 of each file by its role: image, audio, pose."""
    parameters: Parameters
    video_sha256: str

    @property
    def content_id(self) -> str:
        """Equal for videos that are made of the same."""
        return content_id(self.inputs, self.model.sha256, self.parameters)

    def save(self, video: Path) -> None:
        """Writes the sidecar; call it after the video has been published, so that it never describes another one."""
        with publish(sidecar_path(video)) as temporary:
            temporary.write_text(json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, video: Path) -> "Provenance":
        """Reads the sidecar of a video.

        Raises:
            UserError: there is none, or it describes no rendered video.
        """
        path = sidecar_path(video)
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            return cls(**{**told, "model": ModelIdentity(**told["model"])})
        except FileNotFoundError as error:
            raise UserError(f"{video} has no {path.name} beside it: rendering writes one") from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(f"{path} does not describe a rendered video: {error!r}") from error


def sidecar_path(video: Path) -> Path:
    """NAME.mp4.json of NAME.mp4."""
    return video.with_name(video.name + SUFFIX)


def content_id(inputs: Mapping[str, str], model_sha256: str, parameters: Parameters) -> str:
    """The identity of a video before it is rendered; sha256 in hexadecimal digits."""
    parts = {"inputs": dict(inputs), "model": model_sha256, "parameters": dict(parameters)}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def record(video: Path, model: ModelIdentity, inputs: Mapping[str, Path], parameters: Parameters) -> Provenance:
    """Hashes a published video and its inputs, and writes the sidecar."""
    hashes = {role: path_sha256(path) for role, path in inputs.items()}
    provenance = Provenance(model, hashes, parameters, file_sha256(video))
    provenance.save(video)
    return provenance
