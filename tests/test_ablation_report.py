"""The comparison of an ablation's runs, from their files: tables, verdicts, and a page in a real browser."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from omnihuman.errors import UserError
from omnihuman.media.write import write_video
from omnihuman.pipeline.ablations import load_ablation
from omnihuman.pipeline.arm_report import report
from omnihuman.pipeline.arms import KEPT, LOSSES, RESULT, RESULTS, TrialResult, Work
from omnihuman.pipeline.comparison import ITEMS, compare
from omnihuman.pipeline.graph import Outcome, StepResult

ROOT = Path(__file__).parents[1]
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
MEASURE = "<script>document.title = document.documentElement.scrollWidth - innerWidth</script>"
FILE = """
seeds: [1, 2, 3]
reference: half
arms:
  little: [stages.2_audio.mix.audio_eligible=0.1]
  half: [stages.2_audio.mix.audio_eligible=0.5]
  all: [stages.2_audio.mix.audio_eligible=1.0]
claims:
  sync: {says: little audio lowers sync, arm: little, metric: sync, change: lower, margin: 0.1}
  motion: {says: audio alone lowers motion, arm: all, metric: motion, change: lower, margin: 0.0}
  hands: {says: nobody measured hands, arm: all, metric: hands, change: higher, margin: 0.0}
"""
SYNC = {"little": 0.2, "half": 0.6, "all": 0.6}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project whose runs have left their files: sync differs between arms, motion does not."""
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    (tmp_path / "conf/ablation/shares.yaml").write_text(FILE)
    work = Work(tmp_path, "c" * 40, load_ablation("shares", "tiny", tmp_path / "conf"), "tiny")
    random = np.random.default_rng(6)
    for trial in work.ablation.trials:
        folder = work.folder(trial)
        (folder / KEPT).mkdir(parents=True)
        (folder / LOSSES).mkdir()
        steps = (StepResult("train@2_audio", 0, Outcome.RAN, 12.0), StepResult("evaluate", 0, Outcome.RESTORED, 1.0))
        figures = {"opening": {"generated": {"value": SYNC[trial.arm.name], "low": 0.0, "high": 1.0, "num_clips": 4}}}
        TrialResult(
            trial, "tiny", work.commit, work.ablation.claims_key, 0, steps, figures | {"confidence": 0.95}, {}
        ).save(folder / RESULT)
        rows = [
            (f"clip-{item}", f"person-{item // 2}", f"sound/{metric}", middle + 0.05 * random.normal())
            for metric, middle in (("sync", SYNC[trial.arm.name]), ("motion", 1.0))
            for item in range(16)
        ]
        pd.DataFrame(rows, columns=["item", "person", "metric", "value"]).to_csv(folder / ITEMS, index=False)
        for number in range(2):
            frames = random.integers(0, 255, (5, 64, 3 * 48, 3), np.uint8)
            write_video(folder / KEPT / f"sound-{number}.mp4", frames, 25.0)
        losses = np.exp(-np.arange(40) / 20) + 0.02 * random.random(40)
        pd.DataFrame({"step": range(1, 41), "loss": losses}).to_csv(folder / LOSSES / "2_audio.csv", index=False)
    return tmp_path


def results(project: Path) -> list[Path]:
    return sorted((project / RESULTS / "shares").glob(f"*/*/{RESULT}"))


def test_the_comparison_judges_each_claim_and_keeps_its_intervals(project: Path) -> None:
    text = report(project, "shares")
    outcomes = {verdict.name: verdict.outcome for verdict in compare(project, "shares").verdicts}
    assert outcomes == {"sync": "reproduced", "motion": "undecided", "hands": "not measured"}
    assert "reproduced    little audio lowers sync" in text and "3 seeds, 8 people, 16 items" in text
    assert "measured: sound/motion, sound/sync" in text and "unchanged since" in text
    assert re.search(r"sound/sync +0\.2\d\d \[0\.1\d\d, 0\.2\d\d\] +0\.[56]\d\d", text)
    assert "opening.generated" in text and "opening.generated.low" not in text
    tree = json.loads((project / RESULTS / "shares.json").read_text())
    assert [verdict["outcome"] for verdict in tree["verdicts"]] == list(outcomes.values())
    assert len(tree["runs"]) == 9 and tree["claims_changed"] is False


def test_claims_that_were_changed_after_the_runs_are_told(project: Path) -> None:
    path = project / "conf/ablation/shares.yaml"
    path.write_text(path.read_text().replace("margin: 0.1", "margin: 0.3"))
    assert "CHANGED AFTER RUNS HAD BEGUN" in report(project, "shares")
    assert 'class="changed"' in (project / RESULTS / "shares.html").read_text()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: shutil.rmtree(folder), "no arm of shares has run here; run `omnihuman ablate run shares`"),
        (lambda folder: (folder / "all/seed-2/result.json").unlink(), "1 of 9 runs of shares .* (all seed 2)"),
        (
            lambda folder: (folder / "all/seed-2/result.json").write_text(
                (folder / "all/seed-2/result.json").read_text().replace("c" * 40, "d" * 40)
            ),
            "different profiles or commits: .*all seed 2 (tiny, dddddddd)",
        ),
        (
            lambda folder: (folder / "all/seed-2" / ITEMS).write_text("item,value\n1,2\n"),
            "has no column person, metric",
        ),
    ],
)
def test_what_cannot_be_compared_is_one_message(project: Path, spoil, said: str) -> None:
    spoil(project / RESULTS / "shares")
    with pytest.raises(UserError, match=said.replace("(", r"\(").replace(")", r"\)")):
        compare(project, "shares")


def test_runs_without_items_leave_every_claim_unmeasured(project: Path) -> None:
    for path in results(project):
        (path.parent / ITEMS).unlink()
    assert {verdict.outcome for verdict in compare(project, "shares").verdicts} == {"not measured"}
    assert "no run of little has a value of sound/sync; measured: nothing" in report(project, "shares")


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no browser is here; install Debian's package chromium")
@pytest.mark.parametrize("width", [1280, 500])  # a headless window is not narrower than 500
def test_the_page_opens_without_a_message_and_fits_its_window(project: Path, width: int, tmp_path: Path) -> None:
    assert BROWSER is not None
    report(project, "shares")
    page = (project / RESULTS / "shares.html").read_text(encoding="utf-8")
    measured = tmp_path / "page.html"
    measured.write_text(page + MEASURE, encoding="utf-8")
    command = [
        BROWSER,
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--enable-logging=stderr",
        f"--window-size={width},900",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--dump-dom",
        measured.as_uri(),
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert "CONSOLE" not in result.stderr
    found = re.search(r"<title>(-?\d+)</title>", result.stdout)
    assert found and int(found[1]) <= 0, f"wider than its window by {found and found[1]} pixels"
    assert result.stdout.count("data:image/jpeg;base64") == 2 * 4  # two people, the picture and three arms
    assert result.stdout.count('class="outcome') == 3 and result.stdout.count("<svg") >= 3
    assert "http://" not in re.sub(r'"http://www\.w3\.org[^"]*"|"http://purl[^"]*"|"http://creative[^"]*"', "", page)
