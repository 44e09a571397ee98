"""DeepSpeed on ranks of the processor against one process; another number of ranks; whole weights."""

import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file
from scipy.io import wavfile
from tests.rank_project import STAGE, Ranks, losses, work, write_project
from tests.small_project import wait_until
from tests.tiny import CONFIG, WIDTHS

from omnihuman.cli import main
from omnihuman.media.probe import probe
from omnihuman.model.checkpoint import load_model
from omnihuman.model.omnihuman import OmniHumanTransformer
from omnihuman.training.dataset import training_samples
from omnihuman.training.start import latent_std

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


@pytest.mark.long
@pytest.mark.parametrize(("strategy", "frozen"), [("zero2", []), ("zero3", []), ("zero3", ["pose"])])
def test_another_number_of_ranks_goes_on_with_average_and_optimizer(
    strategy: str, frozen: list[str], tmp_path: Path
) -> None:
    steps = 24  # enough for a signal to come before the last one
    changes = {"training__ema_decay": 0.9, "stage__steps": steps, "stage__frozen": frozen}
    write_project(tmp_path, **changes)
    Ranks(tmp_path, 0, "one").end_with(0)
    write_project(tmp_path, **changes, compute__strategy=strategy, compute__processes_per_node=2)
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


def test_micro_steps_change_nothing(folder: Path) -> None:
    common = {"training__ema_decay": 0.9, "compute__strategy": "zero2", "compute__processes_per_node": 2}
    write_project(folder, **common, compute__accumulate=2)
    Ranks(folder, 2, "micro_steps").end_with(0)
    torch.testing.assert_close(losses(folder, "micro_steps"), losses(folder, "one"), **_NOISE)
    assert_near(weights(folder, "micro_steps"), weights(folder, "one"), atol=1e-4)


@pytest.mark.parametrize(
    "strategy",
    ["zero2", "zero3"],
)
def test_low_precision_is_near_and_what_is_frozen_comes_out_bit_by_bit(
    strategy: str, folder: Path, tmp_path: Path
) -> None:
    name = f"{strategy} bf16-mixed"
    changes = {"training__ema_decay": 0.9, "stage__frozen": ["audio", "base.dual_blocks.0."]}
    write_project(
        folder, **changes, training__precision="bf16-mixed", compute__strategy=strategy, compute__processes_per_node=2
    )
    Ranks(folder, 2, name).end_with(0)
    torch.testing.assert_close(losses(folder, name), losses(folder, "one"), rtol=0.02, atol=0)
    newest = max((work(folder, name) / "checkpoints").iterdir())
    alone = shutil.copytree(newest, tmp_path / "alone")  # by itself, far from the stage's work
    assert main(["checkpoint", "consolidate", str(alone), str(tmp_path / "model")]) == 0
    published = weights(folder, name)
    assert_near(load_file(tmp_path / "model/model.safetensors"), published, atol=0)
    torch.manual_seed(yaml.safe_load((folder / "params.yaml").read_text())["seed"])
    began = OmniHumanTransformer(CONFIG, WIDTHS).state_dict()
    began["prediction.latent_std"] = latent_std(training_samples(folder / "encoded"), folder / "encoded")
    for key, tensor in began.items():
        frozen = key.startswith(("audio_", "base.dual_blocks.0.", "prediction."))
        assert torch.equal(published[key], tensor) == frozen or not tensor.any(), key
    assert main(["checkpoint", "reshard", str(alone)]) == 0  # made over for another number of ranks
    assert main(["checkpoint", "consolidate", str(alone) + "-universal", str(tmp_path / "again")]) == 0
    assert_near(load_file(tmp_path / "again/model.safetensors"), published, atol=0)


@pytest.mark.parametrize(
    ("strategy", "num_ranks", "checkpointing"),
    [("single", 0, "selective"), ("zero2", 2, "selective"), ("zero3", 2, "full")],
)
def test_activations_that_are_computed_again_change_nothing(
    strategy: str, num_ranks: int, checkpointing: str, folder: Path
) -> None:
    name = f"{strategy} {checkpointing}"
    write_project(
        folder, training__ema_decay=0.9, training__activation_checkpointing=checkpointing, compute__strategy=strategy,
        compute__processes_per_node=max(1, num_ranks),
    )  # fmt: skip
    Ranks(folder, num_ranks, name).end_with(0)
    torch.testing.assert_close(losses(folder, name), losses(folder, "one"), **_NOISE)
    assert_near(weights(folder, name), weights(folder, "one"), atol=1e-4)


@pytest.mark.long
@pytest.mark.parametrize(("strategy", "num_ranks"), [("single", 0), ("zero2", 2)])
def test_compiled_blocks_train_as_others_do(strategy: str, num_ranks: int, folder: Path) -> None:
    name = f"{strategy} compiled"
    write_project(
        folder, training__ema_decay=0.9, training__compile=True, training__activation_checkpointing="selective",
        compute__strategy=strategy, compute__processes_per_node=max(1, num_ranks),
    )  # fmt: skip
    Ranks(folder, num_ranks, name).end_with(0)
    torch.testing.assert_close(losses(folder, name), losses(folder, "one"), rtol=0, atol=1e-5)
    assert_near(weights(folder, name), weights(folder, "one"), atol=1e-3)


@pytest.mark.parametrize(("strategy", "offload"), [("zero2", "optimizer"), ("zero3", "all")])
def test_offloading_changes_nothing(folder: Path, strategy: str, offload: str) -> None:
    write_project(folder, training__ema_decay=0.9, compute__strategy=strategy, compute__offload=offload)
    Ranks(folder, 1, offload).end_with(0)
    torch.testing.assert_close(losses(folder, offload), losses(folder, "one"), **_NOISE)
    assert_near(weights(folder, offload), weights(folder, "one"), atol=1e-4)


def test_a_checkpoint_of_ranks_becomes_a_model_that_renders(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_project(folder, compute__strategy="zero3", compute__processes_per_node=2)
    if not work(folder, "zero3").exists():
        Ranks(folder, 2, "zero3").end_with(0)
    newest = max((work(folder, "zero3") / "checkpoints").iterdir())
    assert main(["checkpoint", "consolidate", str(newest), str(folder / "consolidated")]) == 0
    assert "1_text_image after 6 steps" in capsys.readouterr().out
    model, description = load_model(folder / "consolidated")
    assert description.num_steps == 6
    assert_near(model.state_dict(), weights(folder, "zero3"), atol=0)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 60, 3), np.uint8)).save(tmp_path / "person.png")
    wavfile.write(tmp_path / "speech.wav", 16_000, np.zeros(8_000, np.int16))
    monkeypatch.chdir(folder)  # which holds params.yaml
    given = ["--image", str(tmp_path / "person.png"), "--audio", str(tmp_path / "speech.wav")]
    video = tmp_path / "video.mp4"
    assert main(["render", *given, "--model", str(folder / "consolidated"), "-o", str(video)]) == 0
    assert probe(video).num_frames == pytest.approx(12.5, abs=1)
    assert main(["checkpoint", "reshard", str(newest)]) == 0
    assert main(["checkpoint", "consolidate", str(folder), str(folder / "nothing")]) == 2
    assert "is no checkpoint of a stage" in capsys.readouterr().err
