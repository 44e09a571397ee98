"""Reading encoded clips out of shards, one by one, from disk or S3."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from omnihuman.data.shards import OF_PICTURES, EncodedClip, Encoders, Pictures, pictures_name
from omnihuman.errors import UserError
from omnihuman.storage.files import publish
from omnihuman.storage.ranges import Range, files_at

PLACE = "shards_at.json"
"""Beside the table of samples, where the shards lie elsewhere."""
SHARDS_VARIABLE = "OMNIHUMAN_SHARDS"
_HEADER_GUESS = 1 << 18
"""Bytes that are read at once in the hope that a header is no longer; that of 256 clips is 0.2 MB."""
_KEPT_HEADERS = 64
_THREADS = 16
_TYPES = {"F16": np.float16, "F32": np.float32, "I16": np.int16, "I32": np.int32}


def load_clip(path: Path, clip_id: str) -> EncodedClip:
    """Reads one clip of a shard, at its highest resolution, without reading the others."""
    return ShardReader(path.parent).clip(path.name, clip_id)


def place_of_shards(encoded: Path) -> str | Path:
    """Where the shards of a folder of encoded clips lie.

    That is where `$OMNIHUMAN_SHARDS` says (a copy, e.g. nearer to the machine), else where `encode.shards_at` said,
    else the folder itself.
    """
    noted = encoded / PLACE
    return os.environ.get(SHARDS_VARIABLE) or (json.loads(noted.read_text()) if noted.is_file() else encoded)


def note_place(folder: Path, place: str) -> None:
    """Leaves the place of the shards for `place_of_shards`."""
    with publish(folder / PLACE) as temporary:
        temporary.write_text(json.dumps(place) + "\n")


@dataclass(frozen=True)
class Lengths:
    """Of an encoded clip."""

    num_windows: int
    num_frames: int


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
        owners = {f.name: pictures if f.name in OF_PICTURES else clip_id for f in fields(EncodedClip)}
        try:
            tensors = {name: header.tensors[f"{owner}.{name}"] for name, owner in owners.items()}
        except KeyError as error:
            raise UserError(f"{self.place}/{shard} does not hold {error.args[0]}: {self._remedy()}") from error
        ranges = {name: _range(tensor, header.begin) for name, tensor in tensors.items()}
        runs = _runs(list(ranges.values()))
        contents = dict(zip(runs, self._files.read(shard, runs), strict=True))
        return EncodedClip(**{name: _array(tensors[name], ranges[name], contents) for name in owners})

    def clip_at_all_sizes(self, shard: str, clip_id: str) -> tuple[EncodedClip, list[Pictures]]:
        """One clip and its pictures at each lower resolution, as `save_shard` took them; errors as for `clip`."""
        begin, end = f"{clip_id}.", f".{OF_PICTURES[0]}"
        named = [name[len(begin) : -len(end)] for name in self._header(shard).tensors if name.startswith(begin)]
        areas = sorted((int(name) for name in named if name.isdecimal()), reverse=True)
        smaller = [self.clip(shard, clip_id, area) for area in areas]
        pictures = [Pictures(area, one.latents, one.references) for area, one in zip(areas, smaller, strict=True)]
        return self.clip(shard, clip_id), pictures

    def lengths(self, shard: str) -> dict[str, Lengths]:
        """Of every clip that a shard holds.

        Raises:
            UserError: the shard is missing or damaged.
        """
        header, size = self._read_header(shard)
        if size != header.size:
            raise UserError(
                f"{self.place}/{shard} has {size} of {header.size} bytes: it is truncated; {self._remedy()}"
            )
        tensors = header.tensors
        clips = [name.removesuffix(".starts") for name in tensors if name.endswith(".starts")]
        shapes = {clip: (tensors[f"{clip}.starts"]["shape"], tensors[f"{clip}.keypoints"]["shape"]) for clip in clips}
        return {clip: Lengths(starts[0], keypoints[0]) for clip, (starts, keypoints) in shapes.items()}

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
            return f"copy data/encoded there again, unset {SHARDS_VARIABLE}, or run `dvc repro --force encode`"
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
