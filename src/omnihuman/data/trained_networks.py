"""Where networks lie that were trained here on people's clips, so that a takedown can name those that know a person.

The file itself says in its header what it was trained on; here is only remembered where it was written.
"""

import json
from collections.abc import Set
from pathlib import Path

from omnihuman.encoders.small_syncnet import read_trained_on
from omnihuman.errors import UserError
from omnihuman.storage.files import publish
from omnihuman.storage.work import content_key, omnihuman_home


def note_network(weights: Path) -> None:
    """Remembers a file of weights, wherever it lies, below `$OMNIHUMAN_HOME`."""
    path = str(weights.absolute())
    with publish(_notes() / f"{content_key(network=path)}.json") as temporary:
        temporary.write_text(json.dumps(path) + "\n", encoding="utf-8")


def networks_trained_on(source_ids: Set[str]) -> tuple[list[Path], list[Path]]:
    """Of the files that were noted: those that were trained on some of the videos, and those that cannot be read."""
    known, unread = [], []
    for path in sorted(Path(json.loads(note.read_text(encoding="utf-8"))) for note in _notes().glob("*.json")):
        try:
            if not source_ids.isdisjoint(read_trained_on(path).source_ids):
                known.append(path)
        except UserError:
            unread.append(path)
    return known, unread


def _notes() -> Path:
    return omnihuman_home() / "networks"
