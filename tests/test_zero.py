"""DeepSpeed on ranks of the processor against one process; another number of ranks; whole weights."""

import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.rank_project import STAGE, Ranks, losses, work, write_project
from tests.small_project import wait_until

from omnihuman.cli import main
from omnihuman.model.checkpoint import load_model

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
    Ranks(folder, 0, "one").end_with(0)
    return folder


@pytest.mark.parametrize("strategy", ["zero2", "zero3"])
def test_two_ranks_train_as_one_process_does(folder: Path, strategy: str) -> None:
    write_project(folder, training__ema_decay=0.9, compute__strategy=strategy, compute__processes_per_node=2)
    Ranks(folder, 2, strategy).end_with(0)
    torch.testing.assert_close(losses(folder, strategy), losses(folder, "one"), **_NOISE)
    assert_near(weights(folder, strategy), weights(folder, "one"), atol=1e-4)  # six steps of 1e-3, and Adam's quotients


@pytest.mark.parametrize("strategy", ["zero2", "zero3"])
def test_ranks_of_which_some_have_no_sound_or_pose_agree(tmp_path: Path, strategy: str) -> None:
    """Four samples a step, some of them without sound, pose or reference: two ranks hold different kinds of samples."""
    mixed = {"text": 0.9, "reference": 0.7, "audio": 0.5, "pose": 0.5}
    write_project(tmp_path, stage__activate=mixed, stage__introduces=["audio", "pose"])
    Ranks(tmp_path, 0, "one").end_with(0)
    write_project(
        tmp_path,
        stage__activate=mixed,
        stage__introduces=["audio", "pose"],
        compute__strategy=strategy,
        compute__processes_per_node=2,
    )
    Ranks(tmp_path, 2, strategy).end_with(0)
    torch.testing.assert_close(losses(tmp_path, strategy), losses(tmp_path, "one"), **_NOISE)
    assert_near(weights(tmp_path, strategy), weights(tmp_path, "one"), atol=1e-4)


def test_another_number_of_ranks_goes_on_with_average_and_optimizer(tmp_path: Path) -> None:
    steps = 24  # enough for a signal to come before the last one
    changes = {"training__ema_decay": 0.9, "stage__steps": steps}
    write_project(tmp_path, **changes)
    Ranks(tmp_path, 0, "one").end_with(0)
    write_project(tmp_path, **changes, compute__strategy="zero2", compute__processes_per_node=2)
    for num_ranks, until in ((2, 1), (1, 3)):
        ranks = Ranks(tmp_path, num_ranks, "parts")
        assert wait_until(lambda until=until: len(losses(tmp_path, "parts")) >= until, 120)
        ranks.send(signal.SIGTERM)
        said = ranks.end_with(143)
        assert "told to stop, saved step" in said
    assert 3 <= len(losses(tmp_path, "parts")) < steps, "the last part had nothing to do"
    said = Ranks(tmp_path, 2, "parts").end_with(0)
    assert "is of 1 rank(s), here are 2" in said and "goes on after step" in said
    torch.testing.assert_close(losses(tmp_path, "parts"), losses(tmp_path, "one"), **_NOISE)
    assert_near(weights(tmp_path, "parts"), weights(tmp_path, "one"), atol=1e-4)


def test_micro_steps_and_low_precision(folder: Path) -> None:
    """Accumulation is exact; bfloat16 is near."""
    common = {"training__ema_decay": 0.9, "compute__strategy": "zero2", "compute__processes_per_node": 2}
    write_project(folder, **common, compute__accumulate=2)
    Ranks(folder, 2, "micro_steps").end_with(0)
    torch.testing.assert_close(losses(folder, "micro_steps"), losses(folder, "one"), **_NOISE)
    assert_near(weights(folder, "micro_steps"), weights(folder, "one"), atol=1e-4)
    write_project(folder, **common, training__precision="bf16-mixed")
    Ranks(folder, 2, "bfloat16").end_with(0)
    torch.testing.assert_close(losses(folder, "bfloat16"), losses(folder, "one"), rtol=0.02, atol=0)


@pytest.mark.parametrize(("strategy", "offload"), [("zero2", "optimizer"), ("zero3", "all")])
def test_offloading_changes_nothing(folder: Path, strategy: str, offload: str) -> None:
    write_project(folder, training__ema_decay=0.9, compute__strategy=strategy, compute__offload=offload)
    Ranks(folder, 1, offload).end_with(0)
    torch.testing.assert_close(losses(folder, offload), losses(folder, "one"), **_NOISE)
    assert_near(weights(folder, offload), weights(folder, "one"), atol=1e-4)


def test_a_checkpoint_of_ranks_becomes_a_model_that_renders(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_project(folder, compute__strategy="zero3", compute__processes_per_node=2)
    if not work(folder, "zero3").exists():
        Ranks(folder, 2, "zero3").end_with(0)
    newest = max((work(folder, "zero3") / "checkpoints").iterdir())
    assert main(["checkpoint", "consolidate", str(newest), str(folder / "consolidated")]) == 0
    assert "1_text_image after 6 steps" in capsys.readouterr().out
    model, description = load_model(folder / "consolidated")
    assert description.num_steps == 6
    assert_near(model.state_dict(), weights(folder, "zero3"), atol=0)
    assert main(["checkpoint", "reshard", str(newest)]) == 0
    assert main(["checkpoint", "consolidate", str(folder), str(folder / "nothing")]) == 2
    assert "is no checkpoint of a stage" in capsys.readouterr().err
