"""Encoded clips as safetensors shards, and a small file that names the encoders."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from omnihuman.batch import Widths
from omnihuman.errors import UserError
from omnihuman.storage.files import publish
from omnihuman.storage.work import content_key

_EMPTY_TEXT = "empty_text.npy"
OF_PICTURES = ("latents", "references")
"""Fields of `EncodedClip` that depend on the resolution."""


@dataclass(frozen=True)
class EncodedClip:
    """Everything training and evaluation need of one clip."""

    latents: np.ndarray  # float16 [windows, C, T, h, w]
    starts: np.ndarray  # int32 [windows], first frame of each window at model time
    references: np.ndarray  # float16 [pictures, C, h, w], single frames spread over the clip
    reference_frames: np.ndarray  # int32 [pictures]
    speech: np.ndarray  # float16 [F, speech layers, speech width], F = 0: not stored
    sound: np.ndarray  # int16 [samples] at 16 kHz, empty without sound
    keypoints: np.ndarray  # float32 [F, K, 3], zeros where none were declared
    text: np.ndarray  # float16 [L, text width]


@dataclass(frozen=True)
class Pictures:
    """A clip's pictures at a resolution below its largest; all else it shares with the `EncodedClip`."""

    area_pixels: int  # of encode.resolutions
    latents: np.ndarray  # float16 [windows, C, T, h, w]
    references: np.ndarray  # float16 [pictures, C, h, w]


@dataclass(frozen=True)
class Encoders:
    """Names and widths of the frozen encoders behind a set of shards, and the prompt that is off."""

    video_codec: str
    video_weights: str = field(compare=False)
    """Folder or hub id, empty for an encoder without weights; likewise the other two. Not compared: the same weights
    elsewhere are the same encoder, as their hash says."""
    video_weights_sha256: str
    video_tile_pixels: int  # 0: the codec takes pictures whole
    video_tile_stride_pixels: int
    speech_encoder: str
    speech_weights: str = field(compare=False)
    speech_weights_sha256: str
    text_encoder: str
    text_weights: str = field(compare=False)
    text_weights_sha256: str
    fps: float
    num_frames: int
    resolutions: tuple[int, ...]
    size_multiple: int
    max_aspect: float
    max_text_tokens: int
    latent_channels: int
    speech_width: int
    speech_layers: int
    text_width: int
    num_keypoints: int

    @property
    def widths(self) -> Widths:
        """The channel counts a model needs to know."""
        return Widths(self.latent_channels, self.text_width, self.speech_width, self.speech_layers, self.num_keypoints)

    @property
    def fingerprint(self) -> str:
        """Hash of all that decides what a clip is encoded to; every shard carries it."""
        return content_key(**{name: value for name, value in asdict(self).items() if not name.endswith("_weights")})

    def same_networks(self, other: "Encoders") -> bool:
        """Whether both mean the same things by their numbers, whatever the sizes and lengths of their clips."""
        networks = ("video_codec", "speech_encoder", "text_encoder")
        names = [*networks, *(f"{network.split('_')[0]}_weights_sha256" for network in networks)]
        return self.widths == other.widths and all(getattr(self, name) == getattr(other, name) for name in names)

    def save(self, path: Path) -> None:
        """Publishes the description as JSON."""
        with publish(path) as temporary:
            temporary.write_text(json.dumps(asdict(self), indent=2) + "\n")

    @staticmethod
    def load(path: Path) -> "Encoders":
        """Reads what `save` wrote.

        Raises:
            UserError: the file is missing.
        """
        if not path.is_file():
            raise UserError(f"{path} is missing: run `dvc repro encode` first")
        return Encoders.of(json.loads(path.read_text()))

    @staticmethod
    def of(raw: dict[str, Any]) -> "Encoders":
        """From what JSON makes of `asdict`.

        Raises:
            KeyError, TypeError: it is of another version.
        """
        return Encoders(**{**raw, "resolutions": tuple(raw["resolutions"])})


def save_empty_text(folder: Path, embedding: np.ndarray) -> None:
    """Keeps the embedding [L, text width] of the empty prompt beside the shards, so that training loads no encoder."""
    with publish(folder / _EMPTY_TEXT) as temporary:
        np.save(temporary, embedding.astype(np.float32))


def load_empty_text(folder: Path) -> np.ndarray:
    """float32 [L, text width]: text that is off.

    Raises:
        UserError: the file is missing.
    """
    if not (folder / _EMPTY_TEXT).is_file():
        raise UserError(f"{folder / _EMPTY_TEXT} is missing: run `dvc repro encode` again")
    return np.load(folder / _EMPTY_TEXT, allow_pickle=False)


def save_shard(
    path: Path,
    clips: Iterable[tuple[str, EncodedClip]],
    encoders: Encoders,
    smaller: Iterable[tuple[str, Pictures]] = (),
    source_ids: str = "",
) -> None:
    """Publishes clips, keyed by clip id, as one safetensors file.

    Args:
        smaller: the clips' pictures at lower resolutions.
        source_ids: of the videos, by which a takedown finds the file where no table names its clips any more.
    """
    tensors = {f"{clip_id}.{f.name}": getattr(clip, f.name) for clip_id, clip in clips for f in fields(EncodedClip)}
    for clip_id, pictures in smaller:
        name = pictures_name(clip_id, pictures.area_pixels)
        tensors |= {f"{name}.{field}": getattr(pictures, field) for field in OF_PICTURES}
    _save(path, tensors, encoders, source_ids)


def join_shards(path: Path, parts: Iterable[Path], encoders: Encoders) -> None:
    """Publishes the clips of several shards of these encoders as one."""
    _save(path, {name: tensor for part in parts for name, tensor in load_file(part).items()}, encoders)


def _save(path: Path, tensors: Mapping[str, np.ndarray], encoders: Encoders, source_ids: str = "") -> None:
    with publish(path) as temporary:
        arrays = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
        about = {"encoders": encoders.fingerprint} | ({"source_ids": source_ids} if source_ids else {})
        save_file(arrays, temporary, about)


def pictures_name(clip_id: str, smaller_area: int | None) -> str:
    """Under which a clip's pictures lie in its shard; None: the largest."""
    return clip_id if smaller_area is None else f"{clip_id}.{smaller_area}"
