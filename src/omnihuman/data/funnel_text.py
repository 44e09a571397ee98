"""The funnel for a terminal, alone or beside that of another policy."""

from collections.abc import Mapping

from omnihuman.data.eligibility import MODALITIES
from omnihuman.data.report import describe_hours

Funnel = Mapping[str, float | int]
_FIRST_FAIL = "first_fail_"


def describe_funnel(funnel: Funnel, other: Funnel | None = None) -> str:
    """Clips and hours by modality, and by rule how many clips it is the first to refuse.

    Args:
        other: of the same clips under another policy, in a column of its own.
    """
    columns = [funnel] if other is None else [funnel, other]
    heads = [""] if other is None else ["now", "then"]
    lines = [_line("", [f"{head} {unit}".strip() for unit in ("clips", "time") for head in heads])]
    for name, suffix in [("can be used", ""), *((modality, f"_{modality}") for modality in MODALITIES)]:
        clips = [str(column[f"clips{suffix or '_usable'}"]) for column in columns]
        lines.append(_line(name, clips + [describe_hours(column[f"hours{suffix}"]) for column in columns]))
    lines += ["", _line("first refused by", [f"{head} clips".strip() for head in heads])]
    rules = [key for column in reversed(columns) for key in column if key.startswith(_FIRST_FAIL)]
    for key in dict.fromkeys(rules):
        counts = [column.get(key) for column in columns]
        if any(counts):
            name = key.removeprefix(_FIRST_FAIL).replace("_", " ", 1)
            lines.append(_line(name, ["-" if count is None else str(count) for count in counts]))
    return "\n".join(lines)


def _line(name: str, cells: list[str]) -> str:
    return f"{name:28}" + "".join(f"{cell:>12}" for cell in cells)
