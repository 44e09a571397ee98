"""Encoded clips that outlive a killed call, a changed list of clips and another sharding: each a shard of its own."""

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omnihuman.config.schema.encode import Encode
from omnihuman.data.clip_encoding import EncodedSizes
from omnihuman.data.shard_reading import Lengths, ShardReader
from omnihuman.data.shards import Encoders, join_shards, save_shard
from omnihuman.storage.work import code_key, content_key, work_folder

_IDENTIFYING = ("clip_id", "sha256", "start_seconds", "end_seconds", "caption", "keypoints_sha256")
"""Columns by which a clip's content is known."""
_CHANGE_NO_CLIP = ("shard_clips", "shards_at", "imported", "deadline_seconds", "memory_megabytes")


_NOT_ENCODING = ("aesthetics", "captioner", "small_syncnet", "syncnet")
"""Networks among the encoders that score and caption."""


class KeptClips:
    """Below `$OMNIHUMAN_HOME/work`, by the hash of encoders, configuration and code; safe for several processes.

    A row is one of the table of eligible clips.
    """

    def __init__(self, config: Encode, encoders: Encoders) -> None:
        self.encoders = encoders
        settings = {key: value for key, value in asdict(config).items() if key not in _CHANGE_NO_CLIP}
        self._key = content_key(
            encoders=_without_paths(asdict(encoders)),
            config=_without_paths(settings),
            code=code_key(
                "encoders",
                *(
                    f"data/{name}.py"
                    for name in ("clip_encoding", "kept_clips", "shards", "sidecar", "speech_features")
                ),
                *(f"media/{name}.py" for name in ("seeking", "video", "picture", "sound")),
                without=[f"encoders/{name}.py" for name in _NOT_ENCODING],
            ),
        )
        self.folder = work_folder(self._key)

    def key_of(self, rows: Iterable[dict[str, Any]]) -> str:
        """Hash of what these clips are encoded to."""
        return content_key(encoding=self._key, clips=[[row[name] for name in _IDENTIFYING] for row in rows])

    def has(self, row: dict[str, Any]) -> bool:
        """Whether the clip is here already."""
        return self._path(row).is_file()

    def keep(self, row: dict[str, Any], encoded: EncodedSizes) -> None:
        """Keeps a clip, atomically."""
        clip_id = row["clip_id"]
        smaller = [(clip_id, pictures) for pictures in encoded.smaller]
        save_shard(self._path(row), [(clip_id, encoded.clip)], self.encoders, smaller, row["source_id"])

    def fetch(self, rows: Iterable[dict[str, Any]], place: str | Path, shard: str) -> None:
        """Keeps clips that a shard elsewhere holds.

        Raises:
            UserError: the shard cannot be read.
        """
        reader = ShardReader(place)
        for row in rows:
            if not self.has(row):
                clip, smaller = reader.clip_at_all_sizes(shard, row["clip_id"])
                self.keep(row, EncodedSizes(clip, smaller))

    def lengths(self, row: dict[str, Any]) -> Lengths:
        """Of a clip that is here."""
        path = self._path(row)
        return ShardReader(path.parent).lengths(path.name)[row["clip_id"]]

    def num_bytes(self, row: dict[str, Any]) -> int:
        """Of a clip that is here."""
        return self._path(row).stat().st_size

    def join(self, rows: Iterable[dict[str, Any]], shard: Path) -> None:
        """Publishes one shard of clips that are here."""
        join_shards(shard, map(self._path, rows), self.encoders)

    def _path(self, row: dict[str, Any]) -> Path:
        name = self.key_of([row])
        return self.folder / "clips" / name[:2] / f"{name}.safetensors"


def _without_paths(parts: dict[str, Any]) -> dict[str, Any]:
    """Weights count by their hash: the same ones in another place are the same work."""
    return {key: value for key, value in parts.items() if not key.endswith("_weights")}
