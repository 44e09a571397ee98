"""What an evaluation found: report.json for programs, items.csv for paired comparisons."""

import csv
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from omnihuman.errors import UserError
from omnihuman.evaluation.metrics.measure import Extractor, Figure
from omnihuman.evaluation.statistics import Estimate
from omnihuman.storage.files import publish

REPORT, ITEMS = "report.json", "items.csv"
FORMAT = 1
ITEM_COLUMNS = ("protocol", "system", "item", "person", "metric", "value")


@dataclass(frozen=True)
class SystemReport:
    """All figures of one system under one protocol."""

    system: str
    """A name such as SadTalker; of our own model the name of its folder unless the user gives another."""
    model_sha256: str
    """Of its weights; empty where only its videos are known."""
    protocol: str
    protocol_hash: str
    figures: tuple[Figure, ...]
    people: dict[str, str]
    """Who is shown, by item."""
    curves: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    """By metric and item, the value in each window of a video."""
    window_seconds: float = 0.0

    def figure(self, metric: str) -> Figure | None:
        """The figure of this name."""
        return next((figure for figure in self.figures if figure.metric == metric), None)

    def rows(self) -> Iterator[dict[str, Any]]:
        """One for each item and metric that has a value there, by `ITEM_COLUMNS`."""
        for figure in self.figures:
            for item, value in (figure.items or {}).items():
                told = (self.protocol, self.system, item, self.people[item], figure.metric, value)
                yield dict(zip(ITEM_COLUMNS, told, strict=True))

    def save(self, folder: Path) -> None:
        """Writes report.json and items.csv."""
        told = {"format": FORMAT, **asdict(self)}
        with publish(folder / REPORT) as temporary:
            temporary.write_text(json.dumps(_without_nan(told), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        write_items(folder / ITEMS, self.rows())

    @classmethod
    def load(cls, path: Path) -> "SystemReport":
        """Reads what `save` wrote, from the folder or from its report.json.

        Raises:
            UserError: there is none, or it is something else.
        """
        path = path / REPORT if path.is_dir() else path
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            if told.pop("format") != FORMAT:
                raise ValueError("it is of another version")
            return cls(**{**told, "figures": tuple(_figure(figure) for figure in told["figures"])})
        except OSError as error:
            raise UserError(f"report {path}: {error.strerror}; name one that `omnihuman evaluate` wrote") from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(f"report {path}: is no report of `omnihuman evaluate` ({error!r})") from error


def write_items(path: Path, rows: Iterable[dict[str, Any]], columns: Sequence[str] = ITEM_COLUMNS) -> None:
    """Publishes a table; what is not finite is left out."""
    with publish(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(row for row in rows if math.isfinite(row["value"]))


def _figure(told: dict[str, Any]) -> Figure:
    estimate: dict[str, Any] = {name: math.nan if value is None else value for name, value in told["estimate"].items()}
    return Figure(**{**told, "estimate": Estimate(**estimate), "extractor": Extractor(**told["extractor"])})


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
