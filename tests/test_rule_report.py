"""What the report says of a rule, on scores of which everything is known."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from omnihuman.config.schema.decide import Decide, Rule
from omnihuman.data.deciding import count_funnel
from omnihuman.data.eligibility import Verdicts, judge
from omnihuman.data.manifest import STRIPS, write_table
from omnihuman.data.rule_report import report_rules
from omnihuman.data.slices import slices
from omnihuman.data.strips import NUM_FRAMES, strip_of

POLICY = Decide({"sharp": Rule("sharpness", "base", at_least=1.0), "calm": Rule("motion", "audio", at_most=0.5)})
SHARPNESS = [0.2, 0.95, 1.05, 1.5, 2.0, 3.0]
MOTION = [0.1, 0.2, 0.3, 0.52, 0.48, 0.9]


@pytest.fixture
def tables() -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, Verdicts]:
    ids = [f"c{number}" for number in range(6)]
    sources = pd.DataFrame(
        {"source_id": ["s0", "s1"], "path": ["a/x.mp4", "b/y.mp4"], "language": ["de", ""], "status": "ok"}
    )
    clips = pd.DataFrame(
        {
            "clip_id": ids,
            "source_id": ["s0"] * 4 + ["s1"] * 2,
            "start_seconds": 0.0,
            "end_seconds": 3600.0,
            "status": "ok",
        }
    )
    values = {"sharpness": SHARPNESS, "motion": MOTION, "face_size": [0.0, 0.1, 0.19, 0.2, 0.35, 0.9]}
    rows = [
        {"clip_id": clip, "scorer": name, "value": value, "status": "ok", "implementation": "fallback", "error": ""}
        for name, column in values.items()
        for clip, value in zip(ids, column, strict=True)
    ]
    scores = pd.DataFrame(rows)
    return sources, clips, scores, judge(clips, scores, POLICY)


def test_a_rule_is_counted_first_alone_stricter_and_looser(tables: tuple, tmp_path: Path) -> None:
    sources, clips, scores, verdicts = tables
    frames = np.stack([np.full((30, 20, 3), 40 * index, np.uint8) for index in range(NUM_FRAMES)])
    write_table([{"clip_id": clip, "strip": strip_of(frames)} for clip in clips["clip_id"]], STRIPS, tmp_path / "s")
    funnel = count_funnel(sources, clips, scores, verdicts)
    sharp, calm = report_rules(verdicts, funnel, clips, {"s0": "x.mp4", "s1": "y.mp4"}, tmp_path / "s")
    assert (sharp.first, sharp.all, sharp.alone, sharp.stricter, sharp.looser) == (2, 2, 2, 1, 1)
    assert (calm.first, calm.all, calm.alone, calm.stricter, calm.looser) == (2, 2, 2, 1, 1)
    assert [example.value for example in sharp.refused] == ["0.95", "0.2"]
    assert [example.value for example in sharp.passed] == ["1.05", "1.5", "2", "3"]
    assert [(example.value, example.name) for example in calm.refused] == [("0.52", "x.mp4"), ("0.9", "y.mp4")]
    assert calm.refused[0].aspect == pytest.approx(20 / 30, abs=0.02)


def test_slices_count_usable_clips_and_what_they_may_train(tables: tuple) -> None:
    found = {(part.kind, part.name): part for part in slices(*tables)}
    german, silent = found["language", "de"], found["language", "not stated"]
    assert (german.clips, german.hours, german.eligible["text"], german.eligible["audio"]) == (4, 4.0, 2, 1)
    assert (silent.clips, silent.eligible["text"], silent.eligible["audio"]) == (2, 2, 1)
    assert {name for kind, name in found if kind == "source"} == {"a", "b"}
    shots = {name: part.clips for (kind, name), part in found.items() if kind == "shot"}
    assert shots == {"no face": 1, "full body": 2, "half body": 1, "face": 2}


def test_a_strip_shows_frames_from_the_whole_clip() -> None:
    frames = np.stack([np.full((90, 120, 3), index, np.uint8) for index in range(0, 250, 5)])
    picture = cv2.imdecode(np.frombuffer(strip_of(frames), np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None and picture.shape == (64, NUM_FRAMES * 85, 3)
    levels = [picture[:, 85 * index + 20 : 85 * index + 60].mean() for index in range(NUM_FRAMES)]
    assert levels == pytest.approx([0, 50, 100, 145, 195, 245], abs=6)
