"""What became of a batch: report.json for programs, report.html for people."""

import base64
import io
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import jinja2
from PIL import Image

from omnihuman.inference.provenance import ModelIdentity
from omnihuman.media.video import read_frames
from omnihuman.rendering.ledger import ItemState
from omnihuman.rendering.ledger_store import STATES
from omnihuman.rendering.manifest import Manifest
from omnihuman.storage.files import publish

REPORT, PAGE = "report.json", "report.html"
TEMPLATE = Path(__file__).with_name("report.html.jinja")
_MAX_PICTURES = 1000
_SHORT_SIDE_PIXELS = 96


@dataclass(frozen=True)
class Outcome:
    """One video of the batch; a duplicate job adds a line and perhaps an output."""

    lines: tuple[int, ...]
    outputs: tuple[str, ...]
    state: str
    attempts: int
    seconds: float
    """That rendering took; 0 where the video lay there already."""
    num_frames: int
    error: str
    text: str


@dataclass(frozen=True)
class Report:
    """All videos of a batch."""

    batch: str
    """Id of the manifest."""
    model: ModelIdentity
    outcomes: tuple[Outcome, ...]

    @property
    def exit_code(self) -> int:
        """0 when all is done, 3 when a part is, 1 when nothing is."""
        done = [outcome.state == "done" for outcome in self.outcomes]
        return 0 if all(done) else 3 if any(done) else 1


def counts(states: Iterable[str]) -> str:
    """Such as `3 done, 1 dead`."""
    number = Counter(states)
    return ", ".join(f"{number[state]} {state}" for state in STATES if number[state]) or "no jobs"


def table(manifest: Manifest, states: list[ItemState]) -> list[str]:
    """One line an item, below a line of titles."""
    outputs = {item.id: ", ".join(item.outputs) for item in manifest.items}
    rows = [("video", "state", "attempts", "seconds", "told")]
    for state in states:
        told = state.error or (state.owner if state.state == "leased" else "")
        seconds = f"{state.seconds:.1f}" if state.seconds else "-"
        rows.append((outputs.get(state.id, state.id[:12]), state.state, str(state.attempt), seconds, told))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def make_report(manifest: Manifest, states: list[ItemState]) -> Report:
    """Joins the jobs with what the ledger knows of them."""
    known = {state.id: state for state in states}
    return Report(
        manifest.id,
        manifest.model,
        tuple(
            Outcome(
                lines=item.lines,
                outputs=item.outputs,
                state=known[item.id].state,
                attempts=known[item.id].attempt,
                seconds=round(known[item.id].seconds, 3),
                num_frames=known[item.id].num_frames,
                error=known[item.id].error,
                text=str(item.parameters["text"]),
            )
            for item in manifest.items
        ),
    )


def write_report(folder: Path, manifest: Manifest, states: list[ItemState]) -> Report:
    """Writes report.json and report.html into the output folder."""
    report = make_report(manifest, states)
    told = {**asdict(report), "counts": Counter(outcome.state for outcome in report.outcomes)}
    with publish(folder / REPORT) as temporary:
        temporary.write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    with publish(folder / PAGE) as temporary:
        temporary.write_text(_page(folder, report), encoding="utf-8")
    return report


def _page(folder: Path, report: Report) -> str:
    done = [outcome.outputs[0] for outcome in report.outcomes if outcome.state == "done"]
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        report=report,
        counts=counts(outcome.state for outcome in report.outcomes),
        pictures={name: _first_picture(folder / name) for name in done[:_MAX_PICTURES]},
        seconds=sum(outcome.seconds for outcome in report.outcomes),
    )


def _first_picture(video: Path) -> str:
    """The first frame as a data address, so that the page needs no further files; empty when the video is gone."""
    try:
        frames = read_frames(video, fps=25.0, short_side_pixels=_SHORT_SIDE_PIXELS, end_seconds=0.04)
    except (OSError, ValueError):
        return ""
    buffer = io.BytesIO()
    Image.fromarray(frames.pixels[0]).save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
