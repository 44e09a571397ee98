"""Workers and the whole step `score` are killed at random moments: nothing is lost, nothing kept is measured twice."""

import random
import shutil
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
from tests.counted_scoring import ALLOWED, CLIPS_PER_CHUNK, MEASURED, measured, write_corpus
from tests.small_project import checkout_environment, wait_until

from omnihuman.data.manifest import read_table

pytestmark = pytest.mark.slow

KILLS = [3, pytest.param(20, marks=pytest.mark.soak)]
WORKERS = 2


def start(folder: Path) -> psutil.Popen:
    """The step, in a folder with its input and a home of its own."""
    variables = checkout_environment(folder / "home") | {"OMNIHUMAN_WORKERS": str(WORKERS)}
    return psutil.Popen([sys.executable, "-m", "tests.counted_scoring", str(folder)], env=variables)


def kept(folder: Path) -> set[str]:
    """Ids of the clips whose scores lie in files."""
    clips = read_table(folder / "clips.parquet").set_index("source_id")["clip_id"]  # each video is one clip
    tables = [read_table(path) for path in (folder / "home").rglob("chunk-*.parquet")]
    return {clips[source_id] for table in tables for source_id in table["source_id"]}


def workers(step: psutil.Popen) -> list[psutil.Process]:
    """Children of the server that forks them."""
    return [worker for child in step.children() for worker in child.children()]


def tables(folder: Path) -> list[bytes]:
    return [(folder / f"{name}.parquet").read_bytes() for name in ("scores", "strips")]


def allow(folder: Path, number: int) -> int:
    """Lets so many more clips be measured, and those that the workers hold; returns how many there will be at least."""
    wanted = len(measured(folder)) + number
    (folder / ALLOWED).write_text(str(wanted + WORKERS))
    return wanted


def await_more(folder: Path, step: psutil.Popen, wanted: int) -> None:
    """Until so many clips are measured."""
    assert wait_until(lambda: len(measured(folder)) >= wanted or step.poll() is not None, 300)
    assert step.poll() is None, "the step ended before it could be killed"


@pytest.fixture(scope="module", params=KILLS)
def kills(request: pytest.FixtureRequest) -> int:
    return request.param


@pytest.fixture(scope="module")
def uninterrupted(kills: int, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus that has been scored."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    write_corpus(folder, 8 * (1 + kills))
    assert start(folder).wait() == 0
    assert sorted(measured(folder)) == read_table(folder / "clips.parquet")["clip_id"].tolist()
    return folder


@pytest.fixture
def folder(uninterrupted: Path, tmp_path: Path) -> Path:
    """The same corpus before it was scored."""
    names = shutil.ignore_patterns("home", MEASURED, "scores.parquet", "strips.parquet")
    return Path(shutil.copytree(uninterrupted, tmp_path / "corpus", ignore=names))


def test_what_a_killed_worker_had_in_work_is_measured_by_another(kills: int, uninterrupted: Path, folder: Path) -> None:
    moments = random.Random(kills)
    wanted = allow(folder, 3)
    step = start(folder)
    for _ in range(kills):
        await_more(folder, step, wanted)  # so that no clip is hit three times, after which it is an error
        time.sleep(moments.uniform(0, 0.1))
        alive = workers(step)
        assert alive, "no worker is left to be killed"
        moments.choice(alive).kill()
        wanted = allow(folder, 3)
    (folder / ALLOWED).unlink()
    assert step.wait() == 0
    assert tables(folder) == tables(uninterrupted)
    times = Counter(measured(folder))
    assert len(times) == len(measured(uninterrupted))
    assert times.total() <= len(times) + kills  # a worker may die between measuring and telling


def test_a_killed_step_measures_nothing_again_that_was_kept(kills: int, uninterrupted: Path, folder: Path) -> None:
    moments = random.Random(kills)
    lost = 0
    for _ in range(kills):
        before, finished = len(measured(folder)), kept(folder)
        wanted = allow(folder, moments.randint(1, 4))
        step = start(folder)
        await_more(folder, step, wanted)
        time.sleep(moments.uniform(0, 0.1))
        family = step.children(recursive=True)
        step.kill()
        step.wait()
        psutil.wait_procs(family, timeout=10)
        now = measured(folder)[before:]
        assert not finished & set(now)
        lost += len(set(now) - kept(folder))
    (folder / ALLOWED).unlink()
    before, finished = len(measured(folder)), kept(folder)
    assert start(folder).wait() == 0
    assert not finished & set(measured(folder)[before:])
    assert tables(folder) == tables(uninterrupted)
    assert len(measured(folder)) == len(measured(uninterrupted)) + lost
    assert len(kept(folder)) == len(measured(uninterrupted)) and finished, f"chunks hold {CLIPS_PER_CHUNK} clips"
