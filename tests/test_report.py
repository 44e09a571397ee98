import pytest

from omnihuman.config.schema.decide import Rule
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
