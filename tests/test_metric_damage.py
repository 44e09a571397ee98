"""Metrics move the right way, step by step, under known damage; `-s` prints the figures and effect sizes."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from benchmarks.damage import (
    CASES,
    HEADING,
    LONG_CASES,
    REAL_CASES,
    Case,
    drawn_people,
    real_people,
    run,
    table,
    write_section,
)

from omnihuman.evaluation.metrics.measure import Shown

MEDIA = Path(__file__).parents[2] / "shared/media/talk"


def names(case: Case) -> str:
    return f"{case.name} {' '.join(case.metrics)}"


def check(case: Case, people: Sequence[Shown]) -> None:
    rows = run(case, people)
    print(f"\n{table(rows)}")
    assert [row.metric.removesuffix("_stand_in") for row in rows] == list(case.metrics)
    assert all(row.monotonic for row in rows), table(rows)
    assert all(row.effect is None or row.effect * row.direction > 0.3 for row in rows), table(rows)


@pytest.fixture(scope="module")
def bodies() -> list[Shown]:
    return drawn_people(10, 64, 3.2, shots=("half body", "full body"))


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=names)
def test_drawn_people(case: Case, bodies: list[Shown]):
    check(case, bodies)


@pytest.mark.parametrize("case", LONG_CASES, ids=names)
def test_long_drawn_videos(case: Case):
    check(case, drawn_people(3, 48, 9.4))


@pytest.fixture(scope="module")
def talkers() -> list[Shown]:
    if not MEDIA.is_dir():
        pytest.skip(f"no real people: {MEDIA} is absent")
    return real_people(MEDIA, 128, 3.2)


@pytest.mark.slow
@pytest.mark.parametrize("case", REAL_CASES, ids=names)
def test_real_people(case: Case, talkers: list[Shown]):
    check(case, talkers)


def test_the_section_of_a_document_is_replaced_and_nothing_else(tmp_path: Path):
    path = tmp_path / "figures.md"
    path.write_text("# Figures\n\n## One\n\n1\n")
    write_section(path, "first")
    assert path.read_text() == f"# Figures\n\n## One\n\n1\n\n{HEADING}\n\nfirst\n"
    path.write_text(path.read_text() + "\n## Two\n\n2\n")
    write_section(path, "second")
    assert path.read_text() == f"# Figures\n\n## One\n\n1\n\n{HEADING}\n\nsecond\n\n## Two\n\n2\n"
