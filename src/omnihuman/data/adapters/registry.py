"""The layouts of published sets of videos, by the name that `collect.layout` gives."""

from collections.abc import Callable
from pathlib import Path

from omnihuman.data.adapters import celebv_hq, hdtf, ravdess
from omnihuman.data.entries import Entry

LAYOUTS: dict[str, Callable[[Path], list[Entry]]] = {
    "celebv_hq": celebv_hq.entries,
    "ravdess": ravdess.entries,
    "hdtf": hdtf.entries,
}
"""Each takes the folder and raises UserError where it is not laid out so."""
