"""Tables beside published ones, and the page in a real browser: no message, no overflow, videos that move together."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
from tests.browser import BROWSER, Browser, browser
from tests.video_items import named, write_list, write_set

from omnihuman.evaluation.metrics.measure import Extractor, Figure
from omnihuman.evaluation.protocol_run import compare, evaluate_videos
from omnihuman.evaluation.published import PublishedTable, PublishedValue
from omnihuman.evaluation.results import SystemReport
from omnihuman.evaluation.statistics import Estimate
from omnihuman.evaluation.tables import CONTEXT, OTHER, as_markdown, as_text, table_of, tables

INCEPTION = Extractor("Inception", "bilinear to 299", "ab" * 32, calibrated=True)
STAND_IN = Extractor("random features", "none")


def report(system: str, protocol_hash: str = "p" * 32, **figures: tuple[float, Extractor]) -> SystemReport:
    """Metrics of which a lower value is better."""
    made = tuple(
        Figure(name, Estimate(value, value - 1, value + 1, 100, 50), extractor, "lower", floor=value / 2)
        for name, (value, extractor) in figures.items()
    )
    return SystemReport(system, "", "portrait_celebv_hq", protocol_hash, made, {"a": "anna"})


def test_published_rows_are_context_and_never_the_best() -> None:
    ours = [report("one", fid=(300.0, INCEPTION)), report("two", fid=(200.0, INCEPTION))]
    table = next(table for table in tables(ours) if table.title == "Portraits, CelebV-HQ")
    published = [row for row in table.rows if row.system.endswith("(published)")]
    assert len(published) == 7 and all(row.label == CONTEXT for row in published)
    fid = [column.metric for column in table.columns].index("fid")
    best = [row.system for row in table.rows if row.cells[fid].is_best]
    assert best == ["two"], "31.435 was measured under another protocol"
    assert "*OmniHuman (published)*" in as_markdown(table) and "(OmniHuman (published))" in as_text(table)
    assert "[199, 201]" in as_text(table) and "floor 100" in as_text(table)


def test_an_equal_hash_makes_published_rows_comparable() -> None:
    rows = {"Theirs": {"fid": PublishedValue(100.0)}}
    published = PublishedTable("t", "T", "n", "portrait_celebv_hq", "q" * 32, ("fid",), rows)
    ours = [report("old", fid=(50.0, INCEPTION)), report("new", "q" * 32, fid=(200.0, INCEPTION))]
    table = table_of(ours, published)
    labels = {row.system: row.label for row in table.rows}
    assert labels == {"old": OTHER, "new": "", "Theirs (published)": ""}
    assert [row.system for row in table.rows if row.cells[0].is_best] == ["Theirs (published)"]


def test_a_stand_in_has_a_column_of_its_own() -> None:
    table = tables([report("ours", fid=(10.0, STAND_IN))])[0]
    columns = [(column.metric, column.label) for column in table.columns]
    assert ("fid", "") in columns and ("fid", "uncalibrated") in columns
    own = table.rows[0].cells
    assert own[columns.index(("fid", ""))].number is None, "never in the column of published values"
    assert own[columns.index(("fid", "uncalibrated"))].number == 10.0
    for row in table.rows[1:]:
        assert row.cells[columns.index(("fid", "uncalibrated"))].number is None
    assert "fid ↓ (uncalibrated)" in as_markdown(table)


def test_a_figure_that_is_none_says_why() -> None:
    nothing = Estimate(math.nan, math.nan, math.nan, 3, 2)
    figure = Figure("fid", nothing, INCEPTION, "lower", note="needs 64 videos, there are 3")
    table = tables([replace(report("ours"), figures=(figure,))])[0]
    assert "ours, fid: needs 64 videos, there are 3." in as_markdown(table)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two systems on three items; the second one's videos are a frame shorter."""
    folder = tmp_path_factory.mktemp("page")
    write_list(folder / "items.jsonl", write_set(folder / "real", num_frames=25))
    for name, noise, num_frames in (("A system with a rather long name", 2, 25), ("noisy", 25, 24)):
        write_set(folder / name, noise=noise, num_frames=num_frames)
        evaluate_videos(named(), folder / name, folder / "items.jsonl", name, folder / "reports" / name)
    compare(sorted((folder / "reports").iterdir()), folder / "both")
    return folder / "both/report.html"


@pytest.fixture(scope="module")
def shown(page: Path, tmp_path_factory: pytest.TempPathFactory):
    """The page in a browser, its videos loaded."""
    if BROWSER is None:
        pytest.skip("no browser is here; install Debian's package chromium")
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        opened.size(1280, 900)
        opened.open(page.as_uri())
        opened.until("[...document.querySelectorAll('video')].every((film) => film.readyState >= 2)")
        yield opened


TIMES = "[...document.querySelectorAll('video')].map((film) => film.currentTime)"
SETTLED = "[...document.querySelectorAll('video')].every((film) => !film.seeking)"


@pytest.mark.slow
def test_the_page_says_nothing_asks_nobody_and_fits(page: Path, shown: Browser) -> None:
    text = page.read_text(encoding="utf-8")
    assert "http" not in text.replace("http-equiv", "").replace("http://www.w3.org", "")
    assert shown.evaluate("document.querySelectorAll('video').length") == 9 and text.count("<polyline") == 2
    for width in (1280, 390):
        shown.size(width, 800)
        assert shown.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, width
    shown.size(1280, 900)
    assert not shown.said


@pytest.mark.slow
def test_scrubbing_one_video_moves_all_others(shown: Browser) -> None:
    shown.evaluate("document.querySelector('video').currentTime = 0.6")
    shown.until(f"{SETTLED} && {TIMES}.every((time) => Math.abs(time - 0.6) < 0.03)")
    assert shown.evaluate("document.getElementById('time').textContent") == "0.60 s"
    box = "document.querySelectorAll('video')[4].getBoundingClientRect()"
    shown.evaluate("document.querySelectorAll('video')[4].scrollIntoView({block: 'center'})")
    x, y, width = (shown.evaluate(f"{box}.{side}") for side in ("x", "y", "width"))
    for kind, share in (("mousePressed", 0.8), ("mouseMoved", 0.5), ("mouseReleased", 0.5)):
        shown.call(
            "Input.dispatchMouseEvent", type=kind, x=x + share * width, y=y + 40, button="left", buttons=1, clickCount=1
        )
    shown.until(f"{SETTLED} && {TIMES}.every((time) => Math.abs(time - 0.3) < 0.06)")
    shown.evaluate("const s = document.getElementById('slider'); s.value = 0.9; s.dispatchEvent(new Event('input'))")
    shown.until(f"{SETTLED} && {TIMES}.every((time) => Math.abs(time - 0.9) < 0.03)")


@pytest.mark.slow
def test_keys_play_all_step_and_let_one_be_heard(shown: Browser) -> None:
    shown.press("Home")
    shown.until(f"{SETTLED} && {TIMES}.every((time) => time < 0.03)")
    shown.press("ArrowRight", "ArrowRight")
    shown.until(f"{SETTLED} && {TIMES}.every((time) => Math.abs(time - 0.08) < 0.03)")
    shown.press(" ")
    shown.until(f"{TIMES}.every((time) => time > 0.2)")
    shown.until("[...document.querySelectorAll('video')].every((film) => film.paused)")
    shown.until("document.getElementById('toggle').textContent === 'Play all'")  # it ends by itself
    shown.evaluate("document.querySelectorAll('video')[1].focus()")
    shown.press("Enter")
    heard = "[...document.querySelectorAll('video')].map((film) => !film.muted)"
    assert shown.evaluate(heard) == [False, True] + [False] * 7
    shown.press("Enter")
    assert not any(shown.evaluate(heard)) and not shown.said


def test_a_page_stays_small_and_says_what_it_left_out(
    page: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    size = sum(path.stat().st_size for path in page.parent.parent.glob("reports/*/previews/*/person-0.mp4"))
    monkeypatch.setattr("omnihuman.evaluation.report.MAX_VIDEO_BYTES", size)
    compare(sorted(page.parent.parent.glob("reports/*")), tmp_path / "small")
    text = (tmp_path / "small/report.html").read_text(encoding="utf-8")
    assert "Videos of 2 further items are left out" in text and text.count("<video") == 3
