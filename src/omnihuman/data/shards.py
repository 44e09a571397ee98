"""Encoded clips on disk: safetensors shards with random access, and a small file that names the encoders."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from omnihuman.batch import Widths
from omnihuman.errors import UserError
from omnihuman.storage.files import publish

_EMPTY_TEXT = "empty_text.npy"


@dataclass(frozen=True)
class EncodedClip:
    """Everything training and evaluation need of one clip."""

    latents: np.ndarray  # float16 [windows, C, T, h, w]
    starts: np.ndarray  # int32 [windows], first frame of each window at model time
    references: np.ndarray  # float16 [pictures, C, h, w], single frames spread over the clip
    reference_frames: np.ndarray  # int32 [pictures]
    speech: np.ndarray  # float16 [F, speech layers, speech width], zero rows without sound
    sound: np.ndarray  # int16 [samples] at 16 kHz, empty without sound
    keypoints: np.ndarray  # float32 [F, K, 3], zeros where none were declared
    text: np.ndarray  # float16 [L, text width]


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
    area_pixels: int
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
        return Encoders(**json.loads(path.read_text()))


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


def save_shard(path: Path, clips: Iterable[tuple[str, EncodedClip]]) -> None:
    """Publishes clips, keyed by clip id, as one safetensors file."""
    tensors = {f"{clip_id}.{f.name}": getattr(clip, f.name) for clip_id, clip in clips for f in fields(EncodedClip)}
    with publish(path) as temporary:
        save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, temporary)


def load_clip(path: Path, clip_id: str) -> EncodedClip:
    """Reads one clip of a shard without reading the others."""
    with safe_open(path, framework="numpy") as shard:
        return EncodedClip(**{f.name: shard.get_tensor(f"{clip_id}.{f.name}") for f in fields(EncodedClip)})
