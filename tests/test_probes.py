"""Probes: what they see, leave behind and cost, in one process and on ranks."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from tests.rank_project import WIDE, Ranks, losses, work, write_project
from tests.small_project import wait_until
from tests.tiny import CONFIG, write_encoded

from omnihuman.cli.probes import held_out_probe
from omnihuman.config.compose import compose
from omnihuman.config.schema.diffusion import Diffusion
from omnihuman.config.schema.root import Params
from omnihuman.config.schema.stage import Activation, Stage, Training
from omnihuman.model.checkpoint import load_model
from omnihuman.model.omnihuman import OmniHumanTransformer
from omnihuman.training.fit import StageRun
from omnihuman.training.probes import Probe, probe_folder
from omnihuman.training.run import train_stage

CONF = Path(__file__).parents[1] / "conf"
TRAINING = Training(
    global_batch_size=2, warmup_steps=2, checkpoint_every_steps=10, validate_every_steps=0, probe_every_steps=2
)
RUN = StageRun("2_audio", Stage(steps=5, activate=Activation(1, 1, 1, 1)), TRAINING, CONFIG, Diffusion(), seed=3)
FILES = {"sound-contact-sheet.png", "sound.mp4", "pose-contact-sheet.png", "pose.mp4"}


def encoded_clips(folder: Path) -> Path:
    """Two clips to train on and two held out."""
    if not folder.exists():
        write_encoded(folder, [(True, True)] * 4)
    table = pd.read_parquet(folder / "samples.parquet")
    table.loc[2:, "split"] = "test"
    table.to_parquet(folder / "samples.parquet")
    return folder


Figures = dict[tuple[int, str], float]


def trained(folder: Path, probe: Probe | None) -> tuple[Figures, dict[str, torch.Tensor]]:
    """Figures of the probes, and the weights; the work lies in `folder`/work."""
    figures: Figures = {}

    def report(step: int, metrics: Mapping[str, float]) -> None:
        figures.update({(step, name): value for name, value in metrics.items() if name.startswith("probe/")})

    encoded = encoded_clips(folder.parent / "encoded")
    train_stage(RUN, encoded, folder / "models", folder / "work", report, probe=probe)
    return figures, load_model(folder / "models/2_audio")[0].state_dict()


def test_a_probe_sees_the_model_every_so_many_steps_and_after_the_last(tmp_path: Path) -> None:
    seen: list[tuple[int, bool]] = []

    def probe(model: OmniHumanTransformer, step: int, folder: Path) -> Mapping[str, float]:
        seen.append((step, model.training))
        (folder / "file").write_text(str(step))
        torch.manual_seed(step)
        return {"weight": next(model.parameters()).detach().sum().item()}

    figures, weights = trained(tmp_path / "with", probe)
    assert seen == [(2, False), (4, False), (5, False)]
    assert figures.keys() == {(step, "probe/weight") for step in (2, 4, 5)} and len(set(figures.values())) == 3
    assert [(probe_folder(tmp_path / "with/work", step) / "file").read_text() for step in (2, 4, 5)] == ["2", "4", "5"]
    _, without = trained(tmp_path / "without", None)
    assert all(torch.equal(tensor, without[name]) for name, tensor in weights.items())


def test_a_probe_that_fails_costs_a_picture_and_not_the_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def probe(_: OmniHumanTransformer, step: int, __: Path) -> Mapping[str, float]:
        if step == 2:
            raise OSError("no room for a video")
        return {"step": step}

    figures, _ = trained(tmp_path / "run", probe)
    assert figures == {(4, "probe/step"): 4, (5, "probe/step"): 5}
    assert "after step 2 failed" in caplog.text and "no room for a video" in caplog.text
    assert not probe_folder(tmp_path / "run/work", 2).exists()


@pytest.mark.slow
def test_held_out_people_speak_and_move_in_the_middle_of_training(tmp_path: Path) -> None:
    encoded = encoded_clips(tmp_path / "encoded")
    params = replace(compose("tiny", [], CONF), seed=3)
    figures, weights = trained(tmp_path / "with", held_out_probe(RUN.stage, params, encoded))
    assert {"probe/pose_gain", "probe/pose_gain_still", "probe/pose_gain_real"} <= {name for _, name in figures}
    assert figures[2, "probe/pose_gain"] != figures[5, "probe/pose_gain"]
    assert figures[2, "probe/pose_gain_real"] == figures[5, "probe/pose_gain_real"], "the samples are fixed"
    sheets = []
    for step in (2, 4, 5):
        folder = probe_folder(tmp_path / "with/work", step)
        assert {path.name for path in folder.iterdir()} == FILES
        sheets.append(np.asarray(Image.open(folder / "sound-contact-sheet.png")))
    assert len({sheet.shape for sheet in sheets}) == 1 and not np.array_equal(sheets[0], sheets[2])
    _, without = trained(tmp_path / "without", None)
    assert all(torch.equal(tensor, without[name]) for name, tensor in weights.items())


def test_a_stage_without_sound_and_pose_has_nothing_to_look_at(tmp_path: Path) -> None:
    assert held_out_probe(Stage(), compose("tiny", [], CONF), tmp_path) is None


def of_ranks(folder: Path, strategy: str, num_ranks: int) -> Figures:
    """All figures of a stage that real processes train, as the first one left them."""
    encoded_clips(folder / "encoded")
    write_project(
        folder, compute__strategy=strategy, training__validate_every_steps=2, training__validation_clips=3,
        training__probe_every_steps=4, training__ema_decay=0.5, stage__activate__audio=0.9, stage__steps=4,
        stage__introduces=["audio"], sampling__num_steps=2, **WIDE,
    )  # fmt: skip
    Ranks(folder, num_ranks, strategy).end_with(0)
    assert {path.name for path in probe_folder(work(folder, strategy), 4).iterdir()} == {
        "sound-contact-sheet.png",
        "sound.mp4",
    }
    entries = map(json.loads, (work(folder, strategy) / "metrics.jsonl").read_text().splitlines())
    return {(entry["step"], name): value for entry in entries for name, value in entry["metrics"].items()}


@pytest.mark.long
@pytest.mark.slow
def test_two_ranks_measure_what_one_does(tmp_path: Path) -> None:
    """Their weights differ by rounding; those of ZeRO-3 are divided, and so is their average."""
    alone = of_ranks(tmp_path, "single", 0)
    measured = {key for key in alone if key[1].startswith(("validation", "loss"))}
    averaged = {key for key in measured if key[1].startswith("validation_ema/")}
    assert {step for step, name in averaged if name == "validation_ema/text_reference_audio/mean"} == {2, 4}
    assert all(alone[key] != alone[key[0], key[1].replace("_ema", "")] for key in averaged)
    for strategy in ("zero2", "zero3"):
        together = of_ranks(tmp_path, strategy, 2)
        assert {key for key in together if key[1].startswith(("validation", "loss"))} == measured
        for key in measured:
            assert together[key] == pytest.approx(alone[key], rel=1e-3), (strategy, key)
        assert together[4, "throughput/samples_per_second"] > 0


def failing_probe(_: Stage, __: Params, ___: Path) -> Probe:
    """Fails after step 2, before the model has computed anything, and sums up the weights after step 4."""

    def probe(model: OmniHumanTransformer, step: int, _: Path) -> Mapping[str, float]:
        if step == 2:
            raise OSError("no room for a video")
        return {
            "weights": sum(parameter.float().abs().sum().item() for parameter in model.parameters()),
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
        }

    return probe


@pytest.mark.slow
def test_a_probe_that_fails_keeps_no_other_rank_waiting(tmp_path: Path) -> None:
    encoded_clips(tmp_path / "encoded")
    summed = {}
    for name, strategy, num_ranks in (("one", "single", 0), ("zero3", "zero3", 2)):
        write_project(
            tmp_path, **WIDE, compute__strategy=strategy, training__probe_every_steps=2, stage__steps=5,
            training__validate_every_steps=0,
        )  # fmt: skip
        ranks = Ranks(tmp_path, num_ranks, name, make_probe=failing_probe)
        assert wait_until(lambda ranks=ranks: not ranks.alive(), 150), "a rank waits"
        assert ranks.end_with(0).count("the probe after step 2 failed") == 1
        entries = map(json.loads, (work(tmp_path, name) / "metrics.jsonl").read_text().splitlines())
        probed = {entry["step"]: entry["metrics"] for entry in entries if "probe/weights" in entry["metrics"]}
        assert sorted(probed) == [4, 5]
        summed[name] = probed[5]
    torch.testing.assert_close(losses(tmp_path, "zero3"), losses(tmp_path, "one"), rtol=0, atol=2e-6)
    assert summed["zero3"]["probe/parameters"] == summed["one"]["probe/parameters"]
    assert summed["zero3"]["probe/weights"] == pytest.approx(summed["one"]["probe/weights"], rel=1e-5)
