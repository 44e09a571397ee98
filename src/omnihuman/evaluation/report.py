"""One self-contained page: tables with intervals and floors, videos that are scrubbed together, curves against time."""

import base64
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import numpy as np
from markupsafe import Markup

from omnihuman.evaluation.previews import GENERATED, PREVIEWS, REAL
from omnihuman.evaluation.published import published_tables
from omnihuman.evaluation.results import SystemReport
from omnihuman.evaluation.tables import as_markdown, label_of, tables
from omnihuman.storage.files import publish

PAGE, MARKDOWN = "report.html", "tables.md"
_FOLDER = Path(__file__).parent
TEMPLATE, SCRIPT, STYLE = (_FOLDER / f"report.{kind}.jinja" for kind in ("html", "js", "css"))
MAX_VIDEO_BYTES = 12_000_000
"""Of all videos of a page before they are written as base64, a third longer."""
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's, which people with any colour vision tell apart; dashes tell lines apart too."""
_DASHES = ("", "6 3", "2 3", "8 3 2 3")
PLOT_WIDTH, PLOT_HEIGHT = 560, 180
Placed = tuple[SystemReport, Path]
"""A report and its folder."""


@dataclass(frozen=True)
class Column:
    """What a column of the grid shows of an item."""

    title: str
    video: str  # data address; empty where there is none


@dataclass(frozen=True)
class GridRow:
    """One item."""

    item: str
    person: str
    picture: str
    columns: tuple[Column, ...]


@dataclass(frozen=True)
class Grid:
    """Videos of the first items."""

    rows: tuple[GridRow, ...]
    left_out: int
    """Items whose videos did not fit."""


@dataclass(frozen=True)
class Line:
    """One system in a plot."""

    system: str
    points: str  # of an SVG polyline
    colour: str
    dashes: str


@dataclass(frozen=True)
class Plot:
    """One measure against time."""

    metric: str
    lines: tuple[Line, ...]
    low: str
    high: str
    seconds: str


def write_page(reports: Sequence[Placed], folder: Path) -> None:
    """Writes report.html and tables.md."""
    own = [report for report, _ in reports]
    with publish(folder / MARKDOWN) as temporary:
        temporary.write_text("\n\n".join(map(as_markdown, tables(own))) + "\n", encoding="utf-8")
    with publish(folder / PAGE) as temporary:
        temporary.write_text(page(reports), encoding="utf-8")


def page(reports: Sequence[Placed]) -> str:
    """The page's text; it holds all that it shows and asks no address."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    script, style = (file.read_text(encoding="utf-8") for file in (SCRIPT, STYLE))
    own = [report for report, _ in reports]
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        script=Markup(script),
        style=Markup(style),
        script_hash=_csp_hash(script),
        style_hash=_csp_hash(style),
        reports=own,
        tables=tables(own),
        grid=_grid(reports),
        plots=_plots(own),
        label_of=label_of,
        source=published_tables()[0],
        width=PLOT_WIDTH,
        height=PLOT_HEIGHT,
        isnan=math.isnan,
    )


def _csp_hash(text: str) -> str:
    """As a content security policy names an inline script or style."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _grid(reports: Sequence[Placed]) -> Grid:
    rows, spent, left_out = [], 0, 0
    people = {item: person for report, _ in reports for item, person in report.people.items()}
    for item in sorted(people):
        sources = _sources(item, reports)
        size = sum(path.stat().st_size for _, path in sources)
        if not sources or spent + size > MAX_VIDEO_BYTES:
            left_out += 1
            continue
        spent += size
        columns = tuple(Column(title, _data(path, "video/mp4")) for title, path in sources)
        pictures = [folder / PREVIEWS / GENERATED / f"{item}.jpg" for _, folder in reports]
        picture = next((_data(path, "image/jpeg") for path in pictures if path.is_file()), "")
        rows.append(GridRow(item, people[item], picture, columns))
    return Grid(tuple(rows), left_out)


def _sources(item: str, reports: Sequence[Placed]) -> list[tuple[str, Path]]:
    """The real video, of the first report that has it, and each system's."""
    real = [("real", folder / PREVIEWS / REAL / f"{item}.mp4") for _, folder in reports]
    real = [found for found in real if found[1].is_file()][:1]
    made = [(report.system, folder / PREVIEWS / GENERATED / f"{item}.mp4") for report, folder in reports]
    made = [found for found in made if found[1].is_file()]
    return [*real, *made] if made else []


def _data(path: Path, kind: str) -> str:
    return f"data:{kind};base64," + base64.b64encode(path.read_bytes()).decode()


def _plots(reports: Sequence[SystemReport]) -> list[Plot]:
    metrics = dict.fromkeys(metric for report in reports for metric, curves in report.curves.items() if curves)
    return [_plot(metric, reports) for metric in metrics]


def _plot(metric: str, reports: Sequence[SystemReport]) -> Plot:
    """The mean over items in each window, as far as all items of a system reach."""
    means = {}
    for report in reports:
        if curves := list(report.curves.get(metric, {}).values()):
            length = min(map(len, curves))
            means[report.system] = np.mean([curve[:length] for curve in curves], axis=0)
    values = np.concatenate(list(means.values()))
    low, high, longest = float(values.min()), float(values.max()), max(map(len, means.values()))
    spread = (high - low) or 1.0
    lines = []
    for number, (system, mean) in enumerate(means.items()):
        points = [
            f"{PLOT_WIDTH * (index + 0.5) / longest:.1f},{PLOT_HEIGHT * (high - value) / spread:.1f}"
            for index, value in enumerate(mean)
        ]
        colour, dashes = _COLOURS[number % len(_COLOURS)], _DASHES[number % len(_DASHES)]
        lines.append(Line(system, " ".join(points), colour, dashes))
    return Plot(metric, tuple(lines), f"{low:.3g}", f"{high:.3g}", f"{longest * reports[0].window_seconds:g}")
