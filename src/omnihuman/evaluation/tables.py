"""Tables of systems and metrics, ours beside published ones; as text and Markdown here, the page has its own form."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from omnihuman.evaluation.metrics.measure import Figure
from omnihuman.evaluation.published import PublishedTable, PublishedValue, published_tables
from omnihuman.evaluation.results import SystemReport

CONTEXT = "context: measured by others under another protocol, not comparable"
OTHER = "not comparable: measured under another protocol or on other items"
UNCALIBRATED = "uncalibrated"
DOUBTFUL = "†"
"""Behind a published value that was seen in one copy of the paper only."""


@dataclass(frozen=True)
class Column:
    """One metric as one extractor measures it."""

    metric: str
    better: str  # "higher", "lower" or ""
    label: str = ""
    """Such as `uncalibrated`; below the metric's name."""


@dataclass(frozen=True)
class Cell:
    """One figure as text."""

    number: float | None = None
    value: str = "–"
    interval: str = ""
    floor: str = ""
    note: str = ""
    is_best: bool = False
    """Of those that are comparable."""


@dataclass(frozen=True)
class Row:
    """One system."""

    system: str
    label: str
    """Why it is greyed; empty where it is comparable."""
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    """Systems below one another, metrics side by side."""

    title: str
    note: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]


def tables(reports: Sequence[SystemReport]) -> list[Table]:
    """One table for each protocol of the reports, and one for each published table of these protocols."""
    made = []
    for protocol in dict.fromkeys(report.protocol for report in reports):
        own = [report for report in reports if report.protocol == protocol]
        beside = [table for table in published_tables()[1] if table.protocol == protocol]
        made += [table_of(own, table) for table in beside] or [table_of(own)]
    return made


def table_of(reports: Sequence[SystemReport], published: PublishedTable | None = None) -> Table:
    """Reports of one protocol, and a published table of it."""
    columns = _columns(reports, published)
    wanted = _common_hash(reports, published)
    rows = [_own_row(report, columns, wanted) for report in reports]
    if published:
        label = "" if published.protocol_hash == wanted else CONTEXT
        rows += [_published_row(system, values, columns, label) for system, values in published.rows.items()]
    note = f"Protocol {reports[0].protocol}, {wanted[:12]}." + (f" Published: {published.note}." if published else "")
    if any(cell.value.endswith(DOUBTFUL) for row in rows for cell in row.cells):
        note += f" {DOUBTFUL}: seen in one copy of the paper only."
    title = published.title if published else f"Protocol {reports[0].protocol}"
    return Table(title, note, columns, _with_best(rows, columns))


def _common_hash(reports: Sequence[SystemReport], published: PublishedTable | None) -> str:
    """The protocol's hash that the table compares: the published one where a report has it, else the first report's."""
    hashes = [report.protocol_hash for report in reports]
    return published.protocol_hash if published and published.protocol_hash in hashes else hashes[0]


def _columns(reports: Sequence[SystemReport], published: PublishedTable | None) -> tuple[Column, ...]:
    """In the paper's order, those first that some report has; a stand-in of the same name has a column of its own."""
    found: dict[tuple[str, str], Column] = {}
    own = [figure for report in reports for figure in report.figures]
    directions = {figure.metric.removesuffix("_stand_in"): figure.better for figure in own}
    for metric in published.columns if published else ():
        found[metric, ""] = Column(metric, directions.get(metric, ""))
    for figure in own:
        label = label_of(figure)
        found.setdefault((figure.metric, label), Column(figure.metric, figure.better, label))
    measured = {(figure.metric, label_of(figure)) for figure in own}
    return tuple(sorted(found.values(), key=lambda column: (column.metric, column.label) not in measured))


def label_of(figure: Figure) -> str:
    """`uncalibrated`, where the extractor is not the published one."""
    return "" if figure.extractor.calibrated else UNCALIBRATED


def _own_row(report: SystemReport, columns: Sequence[Column], wanted: str) -> Row:
    cells = []
    for column in columns:
        figure = report.figure(column.metric)
        cells.append(own_cell(figure) if figure and label_of(figure) == column.label else Cell())
    return Row(report.system, "" if report.protocol_hash == wanted else OTHER, tuple(cells))


def own_cell(figure: Figure) -> Cell:
    """A figure with its interval and floor; where there is none, why."""
    estimate = figure.estimate
    if math.isnan(estimate.value):
        return Cell(note=figure.note)
    return Cell(
        number=estimate.value,
        value=shown(estimate.value),
        interval=f"[{shown(estimate.low)}, {shown(estimate.high)}]",
        floor="" if figure.floor is None else shown(figure.floor),
        note=figure.note,
    )


def shown(value: float) -> str:
    """Four digits, as published tables have them."""
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"


def _published_row(system: str, values: dict[str, PublishedValue], columns: Sequence[Column], label: str) -> Row:
    cells = [_published_cell(values.get(column.metric)) if not column.label else Cell() for column in columns]
    return Row(f"{system} (published)", label, tuple(cells))


def _published_cell(value: PublishedValue | None) -> Cell:
    if value is None or value.value is None:
        return Cell()
    return Cell(value.value, f"{value.value:g}" + (DOUBTFUL if value.doubtful else ""))


def _with_best(rows: Sequence[Row], columns: Sequence[Column]) -> tuple[Row, ...]:
    """Marks the best of at least two comparable values of each column."""
    comparable = [row.cells for row in rows if not row.label]
    tops = [_best(column.better, [cells[index] for cells in comparable]) for index, column in enumerate(columns)]

    def marked(row: Row) -> Row:
        if row.label:
            return row
        pairs = zip(row.cells, tops, strict=True)
        return replace(
            row, cells=tuple(replace(cell, is_best=top is not None and cell.number == top) for cell, top in pairs)
        )

    return tuple(map(marked, rows))


def _best(better: str, cells: Sequence[Cell]) -> float | None:
    """The best value, where there are several and one direction is better."""
    numbers = [cell.number for cell in cells if cell.number is not None]
    if len(numbers) < 2 or not better:
        return None
    return max(numbers) if better == "higher" else min(numbers)


def as_markdown(table: Table) -> str:
    """A table of GitHub's Markdown; what is not comparable is in italics."""
    header = ["system", *(_heading(column) for column in table.columns)]
    lines = [f"### {table.title}", "", table.note, "", _pipes(header), _pipes(["---"] * len(header))]
    for row in table.rows:
        cells = [_joined(cell) for cell in row.cells]
        told = [row.system, *cells]
        lines.append(_pipes([f"*{text}*" if row.label and text != "–" else text for text in told]))
    return "\n".join([*lines, "", *_footnotes(table)])


def as_text(table: Table) -> str:
    """Columns of equal width for a terminal."""
    header = ["system", *(_heading(column) for column in table.columns)]
    body = [[f"({row.system})" if row.label else row.system, *map(_joined, row.cells)] for row in table.rows]
    widths = [max(len(line[index]) for line in [header, *body]) for index in range(len(header))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
             for line in [header, *body]]  # fmt: skip
    return "\n".join([table.title, table.note, *lines, *_footnotes(table)])


def _heading(column: Column) -> str:
    arrow = {"higher": " ↑", "lower": " ↓"}.get(column.better, "")
    return column.metric + arrow + (f" ({column.label})" if column.label else "")


def _joined(cell: Cell) -> str:
    value = f"**{cell.value}**" if cell.is_best else cell.value
    floor = f"floor {cell.floor}" if cell.floor else ""
    return " ".join(part for part in (value, cell.interval, floor) if part)


def _pipes(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _footnotes(table: Table) -> Iterator[str]:
    """Why rows are greyed and cells are empty."""
    for label in dict.fromkeys(row.label for row in table.rows if row.label):
        names = ", ".join(row.system for row in table.rows if row.label == label)
        yield f"- {names}: {label}."
    for row in table.rows:
        for column, cell in zip(table.columns, row.cells, strict=True):
            if cell.note:
                yield f"- {row.system}, {column.metric}: {cell.note}."
