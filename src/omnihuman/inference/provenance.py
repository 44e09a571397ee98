"""What a rendered video was made from: NAME.mp4.json beside NAME.mp4. docs/howto/provenance.md describes its fields."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from omnihuman.errors import UserError
from omnihuman.media.tracks import track_hashes
from omnihuman.storage.files import file_sha256, path_sha256, publish

Parameters = Mapping[str, str | int | float]
"""Text, seed, and every key of sampling and render."""
SUFFIX = ".json"
PLACES = ("pose_weights",)
"""Parameters that are paths: a batch needs them, but no video is another for them, and no sidecar tells them."""
FORMAT = 2
"""Of the sidecar. Format 1 had neither `format` nor `made_by`, `content_id` and `tracks_sha256`."""


def creation_tool() -> str:
    """Name and version of this program."""
    return f"omnihuman {version('omnihuman')}"


@dataclass(frozen=True)
class ModelIdentity:
    """Which weights; name and version are empty where the model came from a folder instead of the registry."""

    name: str
    version: int | None
    sha256: str


@dataclass(frozen=True)
class Provenance:
    """A sidecar's content. The video's hash says whether it is still the file that was rendered.

    It names no date, machine or path: equal renderings tell the same, but for the hash of a file with a C2PA manifest,
    whose signature differs each time; the hashes of its tracks do not.
    """

    model: ModelIdentity
    inputs: Mapping[str, str]
    """sha256 of each file by its role: image, audio, pose."""
    parameters: Parameters
    video_sha256: str = ""
    """Of the whole file; empty where it is not written yet, and inside the file itself."""
    tracks_sha256: Mapping[str, str] = field(default_factory=dict)
    """Of the encoded pictures (`video`) and sound (`audio`), whatever container holds them."""
    made_by: str = field(default_factory=creation_tool)

    @property
    def content_id(self) -> str:
        """Equal for videos that are made of the same."""
        return content_id(self.inputs, self.model.sha256, self.parameters)

    def told(self) -> dict[str, Any]:
        """All but the hashes of the file, as a plain tree."""
        tree = {"format": FORMAT, "made_by": self.made_by, "content_id": self.content_id, **asdict(self)}
        return {key: value for key, value in tree.items() if key not in ("video_sha256", "tracks_sha256")}

    def of_file(self, video: Path) -> "Provenance":
        """The same with the hashes of what was written."""
        return replace(self, video_sha256=file_sha256(video), tracks_sha256=track_hashes(video))

    def save(self, video: Path) -> None:
        """Writes the sidecar; call it after the video has been published, so that it never describes another one."""
        hashes = {"video_sha256": self.video_sha256, "tracks_sha256": dict(self.tracks_sha256)}
        text = json.dumps({**self.told(), **hashes}, indent=2, ensure_ascii=False) + "\n"
        with publish(sidecar_path(video)) as temporary:
            temporary.write_text(text, encoding="utf-8")

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> "Provenance":
        """From a plain tree, also one of an older format.

        Raises:
            ValueError: it is of a later format, or its content does not belong to its content_id.
            TypeError, KeyError, AttributeError: it is something else.
        """
        fields = {"made_by": "", **told}
        known, stated = fields.pop("format", 1), fields.pop("content_id", None)
        if known not in range(1, FORMAT + 1):
            raise ValueError(f"format {known} is not known here, it needs a later version of omnihuman")
        for name in ("inputs", "parameters", "tracks_sha256"):
            if not isinstance(fields.get(name, {}), Mapping):
                raise TypeError(f"{name} is no mapping")
        provenance = cls(**{**fields, "model": ModelIdentity(**fields["model"])})
        if stated is not None and stated != provenance.content_id:
            raise ValueError("it was changed: its content_id is that of another content")
        return provenance

    @classmethod
    def load(cls, video: Path) -> "Provenance":
        """Reads the sidecar of a video.

        Raises:
            UserError: there is none, or it describes no rendered video.
        """
        path = sidecar_path(video)
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            return cls.of({**told, "video_sha256": told["video_sha256"]})
        except FileNotFoundError as error:
            raise UserError(f"{video} has no {path.name} beside it: rendering writes one") from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(f"{path} does not describe a rendered video: {error!r}") from error


def sidecar_path(video: Path) -> Path:
    """NAME.mp4.json of NAME.mp4."""
    return video.with_name(video.name + SUFFIX)


def content_id(inputs: Mapping[str, str], model_sha256: str, parameters: Parameters) -> str:
    """The identity of a video before it is rendered; sha256 in hexadecimal digits."""
    parts = {"inputs": dict(inputs), "model": model_sha256, "parameters": _without_places(parameters)}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _without_places(parameters: Parameters) -> dict[str, str | int | float]:
    return {key: value for key, value in parameters.items() if key not in PLACES}


def describe(model: ModelIdentity, inputs: Mapping[str, Path], parameters: Parameters) -> Provenance:
    """What a video will be made of: hashes the inputs."""
    return Provenance(model, {role: path_sha256(path) for role, path in inputs.items()}, _without_places(parameters))
