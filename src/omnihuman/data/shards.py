"""Encoded clips: safetensors shards with random access, on disk or S3, and a small file that names the encoders."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from omnihuman.batch import Widths
from omnihuman.errors import UserError
from omnihuman.storage.files import publish
from omnihuman.storage.ranges import Range, files_at
from omnihuman.storage.work import content_key

_EMPTY_TEXT = "empty_text.npy"
_SHARDS_VARIABLE = "OMNIHUMAN_SHARDS"
_HEADER_GUESS = 1 << 18
"""Bytes that are read at once in the hope that a header is no longer; that of 256 clips is 0.2 MB."""
_KEPT_HEADERS = 64
_THREADS = 16
_OF_PICTURES = ("latents", "references")
"""Fields of `EncodedClip` that depend on the resolution."""
_TYPES = {"F16": np.float16, "F32": np.float32, "I16": np.int16, "I32": np.int32}


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
) -> None:
    """Publishes clips, keyed by clip id, as one safetensors file.

    Args:
        smaller: the clips' pictures at lower resolutions.
    """
    tensors = {f"{clip_id}.{f.name}": getattr(clip, f.name) for clip_id, clip in clips for f in fields(EncodedClip)}
    for clip_id, pictures in smaller:
        name = pictures_name(clip_id, pictures.area_pixels)
        tensors |= {f"{name}.{field}": getattr(pictures, field) for field in _OF_PICTURES}
    with publish(path) as temporary:
        arrays = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
        save_file(arrays, temporary, {"encoders": encoders.fingerprint})


def pictures_name(clip_id: str, smaller_area: int | None) -> str:
    """Under which a clip's pictures lie in its shard; None: the largest."""
    return clip_id if smaller_area is None else f"{clip_id}.{smaller_area}"


def load_clip(path: Path, clip_id: str) -> EncodedClip:
    """Reads one clip of a shard, at its highest resolution, without reading the others."""
    return ShardReader(path.parent).clip(path.name, clip_id)


def place_of_shards(encoded: Path) -> str | Path:
    """Where the shards of a folder of encoded clips lie: there, or where `$OMNIHUMAN_SHARDS` says, e.g. on S3."""
    return os.environ.get(_SHARDS_VARIABLE) or encoded


@dataclass(frozen=True)
class _Header:
    """What a safetensors file says of itself."""

    tensors: dict[str, dict[str, Any]]
    fingerprint: str
    begin: int
    """Of the tensors' bytes."""
    size: int
    """That the whole file must have."""


class ShardReader:
    """Clips by shard and id, from a folder or below `s3://bucket/prefix`; headers are read once."""

    def __init__(self, place: str | Path) -> None:
        self.place = place
        self._files = files_at(place)
        self._headers: dict[str, _Header] = {}

    def clip(self, shard: str, clip_id: str, smaller_area: int | None = None) -> EncodedClip:
        """Reads one clip: only its own bytes, those that lie side by side at once.

        Args:
            smaller_area: of `encode.resolutions`, at which its pictures are wanted; by default at its highest.

        Raises:
            UserError: the shard is missing, damaged or holds no such clip.
        """
        header = self._header(shard)
        pictures = pictures_name(clip_id, smaller_area)
        owners = {f.name: pictures if f.name in _OF_PICTURES else clip_id for f in fields(EncodedClip)}
        try:
            tensors = {name: header.tensors[f"{owner}.{name}"] for name, owner in owners.items()}
        except KeyError as error:
            raise UserError(f"{self.place}/{shard} does not hold {error.args[0]}: {self._remedy()}") from error
        ranges = {name: _range(tensor, header.begin) for name, tensor in tensors.items()}
        runs = _runs(list(ranges.values()))
        contents = dict(zip(runs, self._files.read(shard, runs), strict=True))
        return EncodedClip(**{name: _array(tensors[name], ranges[name], contents) for name in owners})

    def check(self, clips: Mapping[str, Sequence[str]], encoders: Encoders) -> None:
        """Raises `UserError` unless every shard is whole, of these encoders, and holds its clips.

        Args:
            clips: `pictures_name` of what each shard is to hold, by the shard's name.
        """
        with ThreadPoolExecutor(_THREADS) as threads:
            found = threads.map(lambda shard: list(self._problems(shard, clips[shard], encoders)), clips)
            problems = [problem for of_shard in found for problem in of_shard]
        if problems:
            more = f"\nand {len(problems) - 5} more" if len(problems) > 5 else ""
            raise UserError("\n".join(problems[:5]) + more)

    def _problems(self, shard: str, names: Sequence[str], encoders: Encoders) -> Iterator[str]:
        try:
            header, size = self._read_header(shard)
        except UserError as error:
            yield str(error)
            return
        where = f"{self.place}/{shard}"
        missing = [name for name in names if f"{name}.latents" not in header.tensors]
        if size != header.size:
            yield f"{where} has {size} of {header.size} bytes: it is truncated; {self._remedy()}"
        elif header.fingerprint != encoders.fingerprint:
            yield (
                f"{where} was encoded by others than encoders.json names (video_codec {encoders.video_codec}):"
                f" {self._remedy()}"
            )
        elif missing:
            yield f"{where} does not hold {missing[0]} and {len(missing) - 1} others: {self._remedy()}"

    def _remedy(self) -> str:
        if str(self.place).startswith("s3://"):
            return f"copy data/encoded there again, or unset {_SHARDS_VARIABLE}"
        return "remove that folder and run `dvc repro encode`"

    def _header(self, shard: str) -> _Header:
        if shard not in self._headers:
            while len(self._headers) >= _KEPT_HEADERS:
                self._headers.pop(next(iter(self._headers)))
            self._headers[shard] = self._read_header(shard)[0]
        return self._headers[shard]

    def _read_header(self, shard: str) -> tuple[_Header, int]:
        """The header and the size that the file really has."""
        begin, size = self._files.head(shard, _HEADER_GUESS)
        length = int.from_bytes(begin[:8], "little")
        if len(begin) < 8 or 8 + length > size:
            raise UserError(f"{self.place}/{shard} ends within its header: it is truncated; {self._remedy()}")
        if 8 + length > len(begin):
            begin += self._files.read(shard, [(len(begin), 8 + length)])[0]
        try:
            tensors = json.loads(begin[8 : 8 + length])
            metadata = tensors.pop("__metadata__", {})
            ends = [tensor["data_offsets"][1] for tensor in tensors.values()]
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(f"{self.place}/{shard} is no safetensors file: {self._remedy()}") from error
        fingerprint = metadata.get("encoders", "")
        return _Header(tensors, fingerprint, 8 + length, 8 + length + max(ends, default=0)), size


def _range(tensor: dict[str, Any], begin: int) -> Range:
    first, last = tensor["data_offsets"]
    return begin + first, begin + last


def _runs(ranges: Sequence[Range]) -> list[Range]:
    """The ranges with neighbours joined."""
    runs: list[Range] = []
    for start, stop in sorted(ranges):
        if runs and runs[-1][1] == start:
            runs[-1] = (runs[-1][0], stop)
        else:
            runs.append((start, stop))
    return runs


def _array(tensor: dict[str, Any], place: Range, contents: dict[Range, bytes]) -> np.ndarray:
    """A tensor out of the run that holds it."""
    run = next(run for run in contents if run[0] <= place[0] and place[1] <= run[1])
    shape = tensor["shape"]
    values = np.frombuffer(contents[run], np.dtype(_TYPES[tensor["dtype"]]), int(np.prod(shape)), place[0] - run[0])
    return values.reshape(shape).copy()  # apart from its neighbours, aligned and writable
