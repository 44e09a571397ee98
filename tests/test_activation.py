"""Which conditions act in a video: the paper's rules, and an explicit choice."""

from dataclasses import asdict

import pytest

from omnihuman.errors import UserError
from omnihuman.inference.activation import active_conditions, warn_of_untrained


@pytest.mark.parametrize(
    ("audio", "pose", "expected"),
    [
        (True, False, {"text", "reference", "audio"}),
        (True, True, {"text", "reference", "audio", "pose"}),
        (False, True, {"text", "reference", "pose"}),
    ],
)
def test_the_papers_rules(audio: bool, pose: bool, expected: set[str]):
    active = asdict(active_conditions(audio, pose))
    assert {name for name, on in active.items() if on} == expected | {"reference_pose"}


def test_a_choice_overrides_the_rules():
    active = active_conditions(True, True, ["audio"])
    assert (active.text, active.reference, active.audio, active.pose, active.motion) == (
        False,
        False,
        True,
        False,
        False,
    )


def test_what_is_not_there_cannot_be_chosen():
    with pytest.raises(UserError, match="'sound' is unknown; choose among text, reference, audio, pose"):
        active_conditions(True, False, ["sound"])
    with pytest.raises(UserError, match="the condition pose is chosen, but nothing is given for it"):
        active_conditions(True, False, ["audio", "pose"])


def test_an_untrained_condition_is_named_once_it_is_on(caplog: pytest.LogCaptureFixture):
    warn_of_untrained(active_conditions(True, True), ("text", "pose"))
    assert [record.getMessage() for record in caplog.records] == [
        "the model was never trained on audio: it will not steer the video"
    ]
