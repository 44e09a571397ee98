"""DeepSpeed on ranks of the processor against one process; another number of ranks; whole weights."""

import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.rank_project import STAGE, Ranks, losses, work, write_project
from tests.small_project import wait_until

pytestmark = pytest.mark.slow

_NOISE = {"rtol": 0, "atol": 2e-6}
"""Of a sum in another order, on losses of about two."""


def weights(folder: Path, name: str) -> dict[str, torch.Tensor]:
    return load_file(folder / name / "models" / STAGE / "model.safetensors")


def assert_near(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor], atol: float) -> None:
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, two[name], rtol=0, atol=atol, msg=lambda text, name=name: f"{name}: {text}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project, and in `one` what one process makes of it."""
    folder = write_project(tmp_path_factory.mktemp("zero"), training__ema_decay=0.9)
    Ranks(folder, 0, "one").succeed()
    return folder


@pytest.mark.parametrize("strategy", ["zero2", "zero3"])
def test_two_ranks_train_as_one_process_does(folder: Path, strategy: str) -> None:
    write_project(folder, training__ema_decay=0.9, compute__strategy=strategy, compute__processes_per_node=2)
    Ranks(folder, 2, strategy).succeed()
    torch.testing.assert_close(losses(folder, strategy), losses(folder, "one"), **_NOISE)
    assert_near(weights(folder, strategy), weights(folder, "one"), atol=1e-4)  # six steps of 1e-3, and Adam's quotients
