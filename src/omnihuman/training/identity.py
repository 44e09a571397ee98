"""What a stage's work was begun with: nothing else goes on from it."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omnihuman.errors import UserError
from omnihuman.nested import leaves
from omnihuman.storage.files import file_sha256, publish
from omnihuman.training.fit import Place, StageRun

_NOT_OF_THE_WEIGHTS = {
    "checkpoint_every_steps", "keep_checkpoints", "keep_every_steps", "log_every_steps", "validate_every_steps",
    "validation_clips", "probe_every_steps",
}  # fmt: skip
"""Keys of `training` that may change between a stop and going on."""
_NOTE = "run.json"


def of_the_weights(run: StageRun) -> dict[str, Any]:
    """What of a run decides its weights, nested."""
    tree = asdict(run)
    return tree | {
        "training": {key: value for key, value in tree["training"].items() if key not in _NOT_OF_THE_WEIGHTS}
    }


def run_identity(run: StageRun, parent: Path | None, encoded: Path) -> dict[str, Any]:
    """What a run is told apart by: values by dotted keys, and hashes of its data and of the weights it starts from."""
    identity = dict(leaves(of_the_weights(run))) | {
        "data": _data_hash(encoded),
        "parent": file_sha256(parent) if parent else "",
    }
    return json.loads(json.dumps(identity))  # as it comes back from a file


def check_same_run(identity: dict[str, Any], place: Place) -> None:
    """Compares a run with that of the work folder, where one is noted there. All ranks call it.

    Raises:
        UserError: the folder is of another run; names every key that differs, with both values.
    """
    problem = _difference(identity, place.work) if place.ranks.first else ""
    if problem := place.ranks.of_first(problem):
        raise UserError(problem)


def note_run(identity: dict[str, Any], place: Place) -> None:
    """From here on the work folder is of this run."""
    path = place.work / _NOTE
    if place.ranks.first and not path.is_file():
        with publish(path) as temporary:
            temporary.write_text(json.dumps(identity, indent=2))


def _difference(now: dict[str, Any], work: Path) -> str:
    path = work / _NOTE
    if not path.is_file():
        return ""
    begun = json.loads(path.read_text())
    differing = [key for key in now | begun if now.get(key) != begun.get(key)]
    if not differing:
        return ""
    lines = [f"{key} is {now.get(key)!r}, but was {begun.get(key)!r} when {work} was begun" for key in differing]
    return "\n".join([*lines, "set it back to go on, or name another folder to begin the stage again"])


def _data_hash(encoded: Path) -> str:
    """Of the table of samples, the encoders, and the shards' names and sizes: shards may be too many to read."""
    digest = hashlib.sha256()
    for name in ("samples.parquet", "encoders.json"):
        digest.update(file_sha256(encoded / name).encode())
    for path in sorted(encoded.glob("shard-*")):
        digest.update(f"{path.name} {path.stat().st_size}".encode())
    return digest.hexdigest()
