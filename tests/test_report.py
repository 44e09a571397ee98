import pytest

from omnihuman.config.schema.decide import Rule
from omnihuman.data.eligibility import MODALITIES
from omnihuman.data.funnel_text import describe_funnel
from omnihuman.data.report import describe_hours, explain


@pytest.mark.parametrize(
    ("value", "status", "error", "text"),
    [
        (0.4, "ok", "", "lip_sync 0.4 is below 1.2"),
        (9.0, "ok", "", "lip_sync 9 is above 8"),
        (float("nan"), "na", "no face was found", "lip_sync does not apply: no face was found"),
        (float("nan"), "timeout", "", "lip_sync has no value (timeout)"),
    ],
)
def test_reasons_are_plain_words(value: float, status: str, error: str, text: str) -> None:
    assert explain(Rule("lip_sync", "audio", at_least=1.2, at_most=8), value, status, error) == text


def test_lengths_have_a_unit_that_suits_them() -> None:
    assert [describe_hours(hours) for hours in (0.001, 0.5, 1234.0)] == ["4 s", "30.0 min", "1,234.0 h"]


def test_two_policies_stand_beside_each_other() -> None:
    now = {"clips_usable": 9, "hours": 2.0, "first_fail_base_sharp": 1, "first_fail_pose_steady_pose": 0}
    now |= {f"{kind}_{modality}": 8 for kind in ("clips", "hours") for modality in MODALITIES}
    alone = describe_funnel(now).splitlines()
    assert [line.split() for line in alone[:2]] == [["clips", "time"], ["can", "be", "used", "9", "2.0", "h"]]
    assert alone[-1].split() == ["base", "sharp", "1"], "rules that refuse nothing are not named"
    then = now | {"clips_audio": 7, "hours_audio": 0.5, "first_fail_audio_speaks": 1}
    beside = describe_funnel(now, then)
    (audio,) = [line for line in beside.splitlines() if line.startswith("audio  ")]
    assert audio.split() == ["audio", "8", "7", "8.0", "h", "30.0", "min"]
    assert "audio speaks" in beside and beside.splitlines()[-1].split()[-2:] == ["-", "1"]
