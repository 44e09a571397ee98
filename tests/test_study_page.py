"""The page of a blind study in a real browser: whole sessions by keyboard, at the width of a desk and of a phone."""

import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.browser import BROWSER, Browser, browser
from tests.study_fixtures import write_systems

from omnihuman import cli
from omnihuman.evaluation.study.description import Description
from omnihuman.evaluation.study.key import Key
from omnihuman.evaluation.study.make import make

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no browser is here; install Debian's package chromium"),
]
SYSTEMS, NUM_ITEMS, REPEATS, ANCHORS = ("ours", "theirs", "others"), 4, 2, 2
QUESTIONS = ("lip_sync", "overall")
TRIAL = "!document.getElementById('trial').hidden && player.length > 0"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """Address of the page, and the key's file."""
    folder = tmp_path_factory.mktemp("study page")
    systems = write_systems(folder, SYSTEMS, tuple(f"item{index}" for index in range(NUM_ITEMS)))
    described = Description(systems=systems, questions=QUESTIONS, repeats=REPEATS, anchors=ANCHORS)
    key = make(described, folder / "published")
    return (folder / "published/index.html").as_uri(), key


@pytest.fixture(scope="module")
def page(study: tuple[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened
        assert opened.said == []


def enter(page: Browser, address: str, rater: str) -> None:
    """Opens the page and types a name, by keyboard alone."""
    page.open(address)
    page.evaluate("document.getElementById('rater').select()")
    page.write(rater)
    page.press("Enter")


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)], ids=["desk", "phone"])
def test_a_session_by_keyboard_gives_answers_that_can_be_scored(
    study: tuple[str, Path], page: Browser, width: int, height: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address, key_file = study
    overflow = "document.documentElement.scrollWidth - innerWidth"
    page.downloads_to(tmp_path)
    page.size(width, height)
    page.open(address)
    assert page.evaluate(overflow) <= 0
    enter(page, address, f"rater {width}")
    page.until(TRIAL)
    assert page.evaluate(overflow) <= 0 and page.evaluate("document.fonts.size") == 0
    for index in range((NUM_ITEMS + ANCHORS + REPEATS) * len(QUESTIONS)):
        page.press("0" if index == 3 else str(1 + index % len(SYSTEMS)))
    assert page.evaluate("!document.getElementById('end').hidden") and page.evaluate(overflow) <= 0
    page.press("Tab", "Enter")
    path = tmp_path / f"answers-rater_{width}.json"
    end = time.monotonic() + 20
    while not path.exists() and time.monotonic() < end:
        time.sleep(0.05)
    told = json.loads(path.read_text())
    assert told["planned"] == len(told["answers"]) == NUM_ITEMS + ANCHORS + REPEATS
    chosen = [choice for entry in told["answers"] for choice in entry["choices"].values()]
    expected = [entry["shown"][(2 * row + n) % 3] for row, entry in enumerate(told["answers"]) for n in range(2)]
    expected[3] = None
    assert chosen == expected
    assert cli.main(["study", "score", str(path), "--key", str(key_file), "-o", str(tmp_path / "out")]) == 0
    assert f"rater {width}" in capsys.readouterr().out


def test_videos_play_stop_and_scrub_together_by_keyboard(study: tuple[str, Path], page: Browser) -> None:
    page.size(1280, 900)
    enter(page, study[0], "player")
    page.until(TRIAL)
    times = "player.videos.map(video => video.currentTime)"
    page.press("ArrowRight", "ArrowRight", "ArrowLeft")
    assert page.evaluate(times) == [0.2] * 3
    assert page.evaluate("player.videos.map(video => video.muted)") == [False, True, True]
    page.press("s")
    assert page.evaluate("player.videos.map(video => video.muted)") == [True, False, True]
    counted = "video.addEventListener('play', () => { player.begun = (player.begun || 0) + 1; })"
    page.evaluate(f"player.videos.forEach(video => {counted})")
    page.press(" ")
    page.until("player.begun >= 3")
    # A browser without a screen may take minutes for the rest of a clip on a busy machine, so its end is told.
    page.evaluate("player.videos[1].dispatchEvent(new Event('ended'))")
    assert page.evaluate("[player.isPlaying, player.range.value]") == [False, "1"]
    page.press("Backspace")  # there is nothing to go back to
    page.press("1", "2", "Backspace")
    assert page.evaluate("[trial, question]") == [0, 1]
    page.press("9")  # there are three videos
    assert page.evaluate("[trial, question]") == [0, 1]


def test_a_closed_browser_goes_on_where_it_was(study: tuple[str, Path], tmp_path: Path) -> None:
    with browser(tmp_path / "profile") as first:
        enter(first, study[0], "anna")
        first.until(TRIAL)
        first.press("1", "2", "0")
        before = first.evaluate("session.entries")
    with browser(tmp_path / "profile") as second:
        second.open(study[0])
        assert second.evaluate("document.getElementById('rater').value") == "anna"
        second.press("Enter")
        second.until(TRIAL)
        assert second.evaluate("session.entries") == before
        assert second.evaluate("[trial, question]") == [1, 1]
        assert second.said == []


def test_orders_are_the_raters_own_balanced_and_repeats_come_late(study: tuple[str, Path], page: Browser) -> None:
    page.open(study[0])
    key = Key.load(study[1])
    orders = page.evaluate("Array.from({length: 300}, (_, index) => orderFor(`rater ${index}`))")
    assert page.evaluate("orderFor('rater 7')") == orders[7] != orders[8]
    leftmost: Counter[str] = Counter()
    first_trial: Counter[str] = Counter()
    for order in orders:
        names = [(entry["trial"], entry["repeat"]) for entry in order]
        assert len(set(names)) == len(names) == NUM_ITEMS + ANCHORS + REPEATS
        first_trial[names[0][0]] += 1
        for place, (name, is_repeat) in enumerate(names):
            leftmost[key.videos[order[place]["shown"][0]].system] += 1
            assert sorted(order[place]["shown"]) == sorted(key.trials[name].videos)
            if is_repeat:
                assert place > names.index((name, False))
    shown = sum(leftmost.values())
    assert all(abs(leftmost[system] / shown - 1 / 3) < 0.06 for system in SYSTEMS), leftmost
    assert len(first_trial) == NUM_ITEMS + ANCHORS and max(first_trial.values()) < 90, first_trial


def test_only_listed_raters_and_their_share_of_the_trials(tmp_path: Path) -> None:
    systems = write_systems(tmp_path, SYSTEMS[:2], ("x", "y", "z"))
    asked = Description(systems=systems, raters=("r1", "r2"), trials_per_rater=2, repeats=1, anchors=1)
    make(asked, tmp_path / "published")
    with browser(tmp_path / "profile") as opened:
        enter(opened, (tmp_path / "published/index.html").as_uri(), "r3")
        assert opened.evaluate("!document.getElementById('unknown').hidden")
        opened.open((tmp_path / "published/index.html").as_uri() + "#rater=r2")
        opened.press("Enter")
        opened.until(TRIAL)
        assert opened.evaluate("session.entries.length") == 2 + 1 + 1
        assert opened.said == []
