"""Workers that make packs: the same order, errors that say what to do, and none of them left."""

import itertools
import signal
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file
from tests.rank_project import STAGE, Ranks, losses, work, write_project
from tests.small_project import wait_until
from tests.test_sampling import packs_of
from tests.tiny import write_encoded

from omnihuman.batch import Pack
from omnihuman.config.schema.stage import Activation, Stage
from omnihuman.errors import UserError
from omnihuman.training.loading import LoadedPacks, each_tensor

pytestmark = pytest.mark.slow
ELIGIBLE = [(True, True), (True, False), (False, True), (False, False)]
HALF_ON = Stage(activate=Activation(0.5, 0.5, 0.5, 0.5))
FIRST, NUM_PACKS = 3, 7
STEPS = 60
"""Of a rank, enough for a signal to come before the last."""


def tensors(pack: Pack) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    for part in pack:
        each_tensor(part, lambda tensor: found.append(tensor) or tensor)
    return found


def workers(of: psutil.Process) -> list[psutil.Process]:
    """Without the tracker of shared memory, which ends with its parent."""
    return [child for child in of.children(recursive=True) if "spawn_main" in " ".join(child.cmdline())]


@pytest.mark.parametrize("num_workers", [0, 1, 3])
def test_the_order_is_the_same_for_any_number_of_workers(tmp_path: Path, num_workers: int) -> None:
    """From the middle on, as after a resume, with packs that end steps and packs that do not; and once more."""
    write_encoded(tmp_path / "encoded", ELIGIBLE)
    packs = packs_of(tmp_path, HALF_ON, packs_per_step=2)
    expected = list(itertools.chain.from_iterable(map(packs.packs, range(FIRST, FIRST + 4))))[:NUM_PACKS]
    packs.first_step = FIRST
    with LoadedPacks(packs, num_workers) as loaded:
        for _ in range(2 if num_workers == 1 else 1):
            found = list(itertools.islice(loaded, NUM_PACKS))
            assert len(workers(psutil.Process())) == num_workers
            for one, two in zip(found, expected, strict=True):
                assert all(map(torch.equal, tensors(one), tensors(two))) and tensors(one)
    assert not workers(psutil.Process())


def test_what_the_user_is_to_mend_comes_without_a_traceback(tmp_path: Path) -> None:
    write_encoded(tmp_path / "encoded", ELIGIBLE)
    packs = packs_of(tmp_path, HALF_ON)
    (tmp_path / "encoded" / "shard-00000.safetensors").unlink()
    with pytest.raises(UserError, match="cannot be read") as told, LoadedPacks(packs, 1) as loaded:
        next(iter(loaded))
    assert len(str(told.value).splitlines()) == 1
    assert not workers(psutil.Process())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose stage has workers."""
    return write_project(tmp_path_factory.mktemp("loading"), stage__steps=STEPS, compute__loader_workers=2)


@pytest.fixture(scope="module")
def alone(folder: Path) -> str:
    """What the stage becomes without workers."""
    train_without(folder, "none")
    return "none"


def train_without(folder: Path, name: str) -> None:
    write_project(folder, stage__steps=STEPS, compute__loader_workers=0)
    Ranks(folder, 0, name).end_with(0)
    write_project(folder, stage__steps=STEPS, compute__loader_workers=2)


def with_workers_at_work(folder: Path, name: str) -> tuple[Ranks, list[psutil.Process]]:
    """A rank that has made two steps, and its workers."""
    ranks = Ranks(folder, 0, name)
    assert wait_until(lambda: len(losses(folder, name)) >= 2 or not ranks.alive(), 300)
    found = workers(psutil.Process(ranks.processes[0].pid))
    assert len(found) == 2, ranks.log.read_text()[-2000:]
    return ranks, found


def none_is_left(found: list[psutil.Process]) -> bool:
    return wait_until(lambda: not any(map(psutil.Process.is_running, found)), 10)


def test_workers_change_no_weight_and_all_of_them_end(folder: Path, alone: str) -> None:
    ranks, found = with_workers_at_work(folder, "two")
    ranks.end_with(0)
    assert none_is_left(found)
    one, two = (load_file(folder / name / "models" / STAGE / "model.safetensors") for name in (alone, "two"))
    assert losses(folder, "two") == losses(folder, alone)
    for name, tensor in one.items():
        assert torch.equal(tensor, two[name]), name


def test_a_killed_worker_is_named_and_the_stage_goes_on_without(folder: Path, alone: str) -> None:
    ranks, found = with_workers_at_work(folder, "killed")
    found[1].kill()
    said = ranks.end_with(2)
    assert "error: a loader worker ended before its time (DataLoader worker (pid" in said
    assert "compute.loader_workers is 2: set it lower, or to 0" in said and "Traceback" not in said
    assert none_is_left(found)
    saved = len(losses(folder, "killed"))
    train_without(folder, "killed")
    assert saved < STEPS and losses(folder, "killed") == losses(folder, alone)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_rank_that_ends_leaves_no_worker(folder: Path, number: signal.Signals) -> None:
    """TERM reaches the workers too, as torchrun and SLURM send it, and yet the step under way is saved."""
    name = number.name
    ranks, found = with_workers_at_work(folder, name)
    if number == signal.SIGTERM:
        for worker in found:
            worker.send_signal(number)
    ranks.send(number)
    if number == signal.SIGTERM:
        said = ranks.end_with(143)
        assert "told to stop, saved step" in said and any((work(folder, name) / "checkpoints").iterdir())
    else:
        assert ranks.codes() == [-number]
    assert none_is_left(found)
