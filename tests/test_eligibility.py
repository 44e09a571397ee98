from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnihuman.config.schema.decide import Decide, Rule
from omnihuman.data import eligibility
from omnihuman.data.eligibility import UNUSABLE, judge
from omnihuman.data.manifest import DECISIONS, write_table
from omnihuman.errors import UserError

POLICY = Decide(
    {
        "sharp": Rule("sharpness", "base", at_least=0.5),
        "lips": Rule("lip_sync", "audio", at_least=1.5),
        "offset": Rule("offset", "audio", at_least=-2, at_most=2),
        "arms": Rule("visibility", "pose", at_least=0.9),
    }
)
SCORERS = ("sharpness", "lip_sync", "offset", "visibility")
STATUSES = ("ok", "na", "error", "timeout")
cells = st.tuples(st.floats(-5, 5), st.sampled_from(STATUSES), st.sampled_from(["fallback", "published"]))
tables = st.lists(st.tuples(st.sampled_from(["ok", "error"]), st.lists(cells, min_size=4, max_size=4)), max_size=6)


def make(table) -> tuple[pd.DataFrame, pd.DataFrame]:
    clips = pd.DataFrame([{"clip_id": f"c{i}", "status": status} for i, (status, _) in enumerate(table)])
    scores = [
        {
            "clip_id": f"c{i}",
            "scorer": s,
            "value": v if status == "ok" else np.nan,
            "status": status,
            "implementation": m,
        }
        for i, (_, row) in enumerate(table)
        for s, (v, status, m) in zip(SCORERS, row, strict=True)
    ]
    columns = ["clip_id", "scorer", "value", "status", "implementation"]
    return clips.reindex(columns=["clip_id", "status"]), pd.DataFrame(scores, columns=columns)


def decide_all(clips: pd.DataFrame, scores: pd.DataFrame, policy: Decide) -> list[dict]:
    return eligibility.decide_all(judge(clips, scores, policy), policy).to_pylist()


def eligible(table, policy: Decide = POLICY) -> dict[str, set[str]]:
    rows = decide_all(*make(table), policy)
    return {m: {r["clip_id"] for r in rows if r["modality"] == m and r["eligible"]} for m in DECISION_MODALITIES}


DECISION_MODALITIES = ("text", "reference", "audio", "pose")
GOOD = [(1.0, "ok", "published"), (2.0, "ok", "fallback"), (0.0, "ok", "published"), (1.0, "ok", "published")]


def changed(index: int, status: str) -> list:
    return [("ok", [(v, status if i == index else s, m) for i, (v, s, m) in enumerate(GOOD)])]


@given(tables)
@settings(deadline=None, max_examples=15)
def test_audio_and_pose_are_parts_of_the_base(table) -> None:
    sets = eligible(table)
    assert sets["audio"] | sets["pose"] <= sets["text"] == sets["reference"]


@given(tables)
@settings(deadline=None, max_examples=15)
def test_an_error_never_enables(table) -> None:
    worse = [(status, [(v, "error", m) for v, _, m in row]) for status, row in table]
    assert not any(eligible(worse).values())
    lost = [("error", row) for _, row in table]
    assert not any(eligible(lost).values())


@given(tables, st.floats(0, 3))
@settings(deadline=None, max_examples=15)
def test_a_stricter_threshold_never_enables(table, more: float) -> None:
    for name, rule in POLICY.rules.items():
        assert rule.at_least is not None
        strict = Decide({**POLICY.rules, name: replace(rule, at_least=rule.at_least + more)})
        before, after = eligible(table), eligible(table, strict)
        assert all(after[modality] <= before[modality] for modality in before)


def test_what_does_not_apply_passes_the_base_but_trains_neither_sound_nor_pose() -> None:
    assert all(eligible([("ok", GOOD)]).values())
    assert all(eligible(changed(0, "na")).values())
    assert not eligible(changed(0, "timeout"))["text"]
    without_sound, without_pose = eligible(changed(1, "na")), eligible(changed(3, "na"))
    assert without_sound["text"] and without_sound["pose"] and not without_sound["audio"]
    assert without_pose["text"] and without_pose["audio"] and not without_pose["pose"]


def test_rows_say_which_rules_failed_and_by_how_much(tmp_path) -> None:
    table = [("ok", [(0.4, "ok", "published"), (3.0, "ok", "fallback"), (5.0, "ok", "published"), GOOD[3]])]
    rows = decide_all(*make(table), POLICY)
    audio = next(row for row in rows if row["modality"] == "audio")
    assert audio["first_fail"] == "sharp" and audio["all_fails"] == ["sharp", "offset"]
    assert audio["provisional"] and not rows[0]["provisional"]
    assert rows[0]["margin"] == pytest.approx(-0.2) and audio["margin"] == pytest.approx(-1.5)
    write_table(rows, DECISIONS, tmp_path / "decisions.parquet")
    unusable = decide_all(*make([("error", GOOD)]), Decide())
    assert {row["first_fail"] for row in unusable} == {UNUSABLE}


def test_a_missing_score_counts_as_an_error_and_order_is_the_policys() -> None:
    clips, scores = make([("ok", GOOD), ("ok", GOOD)])
    rows = decide_all(clips, scores[~((scores["clip_id"] == "c1") & (scores["scorer"] == "sharpness"))], POLICY)
    assert [row["eligible"] for row in rows] == [True] * 4 + [False] * 4
    assert [row["clip_id"] for row in rows] == ["c0"] * 4 + ["c1"] * 4


def test_an_unknown_scorer_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"decide.rules.lips.scorer is 'lipsync'.*did you mean lip_sync"):
        decide_all(*make([("ok", GOOD)]), Decide({"lips": Rule("lipsync", "audio", at_least=1)}))


def test_no_clips_are_no_error() -> None:
    assert decide_all(*make([]), POLICY) == []
