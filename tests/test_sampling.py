"""The knobs of a stage on a corpus of which 13% is eligible: mix, activation, guidance dropout, text alone, phases."""

import logging
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.test_training import FIRST
from tests.tiny import random_model, write_encoded

from omnihuman.config.compose import compose, dump
from omnihuman.config.schema.diffusion import Diffusion
from omnihuman.config.schema.stage import (
    Activation,
    Batching,
    GuidanceDropout,
    Mix,
    Phase,
    Stage,
    StageData,
)
from omnihuman.errors import UserError
from omnihuman.model.checkpoint import load_model
from omnihuman.pipeline.graph import nodes
from omnihuman.training.dataset import SampleSettings, StagePacks
from omnihuman.training.freezing import freeze
from omnihuman.training.module import sample_losses
from omnihuman.training.run import train_stage
from omnihuman.training.sampling import SampleOrder
from omnihuman.training.shares import log_draws, realised_shares

CONF = Path(__file__).parents[1] / "conf"
RECIPES = ("paper_first", "paper_halved", "paper_last")
STAGES = ("1_text_image", "2_audio", "3_pose")
NUM_DRAWS = 100_000
HALF_A_POINT = 0.005
A_POINT = 0.01
NATIVE = Batching(sizes="native")
GOLDEN = [[3, 3, 2, 48, 3, 3, 21, 3], [3, 2, 3, 48, 20, 3, 48, 21]]


def corpus(num_clips: int = 20_000, share: float = 0.13) -> pd.DataFrame:
    """Clips of three sizes, 13% fit for sound and 13% for pose, half of these for both; eligible ones are larger."""
    random = np.random.default_rng(0)
    audio = random.random(num_clips) < share
    pose = np.where(audio, random.random(num_clips) < 0.5, random.random(num_clips) < share * 0.5 / (1 - share))
    width = np.where(audio, random.choice([48, 64], num_clips), random.choice([32, 48, 64], num_clips))
    return one_size_a_clip(audio_eligible=audio, pose_eligible=pose, width=width, height=48)


def one_size_a_clip(**columns: Any) -> pd.DataFrame:
    """Clips that are encoded at one resolution each, about their own."""
    clips = pd.DataFrame(columns)
    return clips.assign(area_pixels=clips["width"] * clips["height"], larger_area_pixels=0)


def settings(stage: Stage, name: str = "3_pose") -> SampleSettings:
    return SampleSettings(name, stage, 17, 0.5, 0.9, 6, Diffusion())


def shares(stage: Stage, samples: pd.DataFrame, name: str = "3_pose", num_draws: int = 30_000):
    order = SampleOrder(samples, stage, 256, 17, name)
    return realised_shares(order, settings(stage, name), samples, num_draws)


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("recipe", RECIPES)
def test_realised_shares_are_those_of_the_preset(recipe: str, stage: str) -> None:
    samples, asked = corpus(), compose("tiny", [f"groups.recipe={recipe}"], CONF).stages[stage]
    found = shares(asked, samples, stage, NUM_DRAWS)
    for modality in ("audio", "pose"):
        mix = getattr(asked.mix, f"{modality}_eligible")
        wanted = samples[f"{modality}_eligible"].mean() if mix is None and asked.mix == Mix() else mix
        if wanted is not None:
            assert getattr(found, f"{modality}_eligible") == pytest.approx(wanted, abs=HALF_A_POINT), modality
    for condition, ratio in asdict(asked.activate).items():
        assert getattr(found, condition) == pytest.approx(ratio, abs=HALF_A_POINT), condition
    assert (found.text_only, found.pictures) == (0, 0)


def test_text_alone_comes_from_all_clips_alike_and_leaves_the_mix_to_the_rest() -> None:
    samples = corpus()
    stage = Stage(
        activate=Activation(0.9, 0.7, 0.5, 0.25),
        mix=Mix(0.5, 0.5),
        data=StageData(text_only_fraction=0.25),
        batching=NATIVE,
    )
    found = shares(stage, samples)
    assert found.text_only == pytest.approx(0.25, abs=A_POINT)
    assert found.audio_eligible == pytest.approx(0.5, abs=A_POINT)
    assert found.pose_eligible == pytest.approx(0.5, abs=A_POINT)
    assert found.text == pytest.approx(0.9, abs=A_POINT)
    assert found.reference == pytest.approx(0.75 * 0.7, abs=A_POINT)
    order = SampleOrder(samples, stage, 256, 17, "3_pose")
    alone = [draw.row for step in range(118) for draw in order.batch(step) if draw.text_only]
    assert samples["audio_eligible"].to_numpy()[alone].mean() == pytest.approx(
        samples["audio_eligible"].mean(), abs=0.015
    )


def test_guidance_dropout_is_a_knob_of_its_own() -> None:
    everything_on = Activation(1, 1, 1, 1)
    stage = Stage(activate=everything_on, mix=Mix(1.0), guidance_dropout=GuidanceDropout(everything=0.1, text=0.2))
    found = shares(stage, corpus())
    assert found.nothing == pytest.approx(0.1, abs=A_POINT)
    assert found.text == pytest.approx(0.9 * 0.8, abs=A_POINT)
    assert found.reference == pytest.approx(0.9, abs=A_POINT)
    assert found.audio == pytest.approx(0.9, abs=A_POINT)
    assert found.motion == pytest.approx(0.5, abs=A_POINT), "motion frames stay, as in guidance"


def test_pictures_are_one_frame_without_sound_pose_and_motion(tmp_path: Path) -> None:
    found = shares(Stage(activate=Activation(1, 1, 1, 1), data=StageData(pictures_share=0.3)), corpus())
    assert found.pictures == pytest.approx(0.3, abs=A_POINT)
    assert found.motion == pytest.approx(0.7 * 0.5, abs=A_POINT)
    write_encoded(tmp_path / "encoded", [(True, True)])
    packs = packs_of(tmp_path, Stage(activate=Activation(1, 1, 1, 1), data=StageData(pictures_share=1.0)))
    ((part,),) = packs.packs(0)
    assert part.latents.shape[2] == 1 and part.conditions.keypoints.shape[1] == 1
    for name in ("audio_on", "pose_on", "motion_on"):
        assert not getattr(part.conditions, name).any(), name
    assert part.conditions.reference_on.all()
    assert sample_losses(random_model(), (part,), Diffusion()).isfinite().all(), "the model takes them"


def packs_of(folder: Path, stage: Stage, batch_size: int = 8, **distributed: Any) -> StagePacks:
    samples = pd.read_parquet(folder / "encoded" / "samples.parquet")
    order = SampleOrder(samples, stage, batch_size, 17, "3_pose")
    empty = np.zeros((1, 64), np.float32)
    return StagePacks(samples, folder / "encoded", order, settings(stage), empty, **distributed)


def test_an_ineligible_clip_brings_neither_sound_nor_pose_to_the_model(tmp_path: Path, monkeypatch) -> None:
    """Spied at the model's input: everything is always on, and half of the clips may not carry it."""
    write_encoded(tmp_path / "encoded", [(True, True), (True, False), (False, True), (False, False)])
    packs = packs_of(tmp_path, Stage(activate=Activation(1, 1, 1, 1)))
    samples = pd.read_parquet(tmp_path / "encoded" / "samples.parquet")
    order = SampleOrder(samples, Stage(), 8, 17, "3_pose")
    model, seen = random_model(), []
    forward = model.forward_packed
    monkeypatch.setattr(model, "forward_packed", lambda inputs: seen.append(inputs) or forward(inputs))
    for step in range(10):
        sample_losses(model, packs.packs(step)[0], Diffusion())
        rows = [draw.row for draw in order.batch(step)]
        (given,) = seen[step]
        assert given.conditions.audio_on.tolist() == samples["audio_eligible"].to_numpy()[rows].tolist()
        assert given.conditions.pose_on.tolist() == samples["pose_eligible"].to_numpy()[rows].tolist()
        for place, row in enumerate(rows):
            if not samples["audio_eligible"][row]:
                with_other_sound = replace(given.conditions, speech=given.conditions.speech.clone())
                with_other_sound.speech[place] += 1.0
                changed = forward([replace(given, conditions=with_other_sound)])[0][place]
                assert (changed == forward([given])[0][place]).all()
                break


def test_draws_are_those_of_the_recipe_that_was_tuned() -> None:
    """Golden rows: the demo's figures were reached with these draws."""
    samples = corpus(50)
    order = SampleOrder(samples, Stage(mix=Mix(0.9, 0.65)), 8, 23, "3_pose")
    assert [[draw.row for draw in order.batch(step)] for step in (0, 7)] == GOLDEN


def test_phases_go_from_low_to_high() -> None:
    samples = corpus(300)
    phases = {"low": Phase(0.25, area_pixels=48 * 48, num_frames=9), "high": Phase(0.75)}
    order = SampleOrder(samples, Stage(steps=40, phases=phases, mix=Mix(0.5)), 64, 17, "1_text_image")
    widths = [{samples["width"][draw.row] for draw in order.batch(step)} for step in range(40)]
    assert max(set.union(*widths[:10])) == 48 and max(set.union(*widths[10:])) == 64
    assert {draw.num_latents for step in range(10) for draw in order.batch(step)} == {3}
    assert {draw.num_latents for step in range(10, 50) for draw in order.batch(step)} == {None}
    early = [draw.row for step in range(10) for draw in order.batch(step)]
    assert samples["audio_eligible"].to_numpy()[early].mean() == pytest.approx(0.5, abs=0.05), "the mix holds within"
    assert order.expected_draws().sum() == pytest.approx(40 * 64)
    with pytest.raises(UserError, match=r"stages.1_text_image.phases.low.area_pixels is 100: .* smallest at 1536"):
        SampleOrder(samples, Stage(phases={"low": Phase(area_pixels=100)}), 8, 17, "1_text_image")


def test_native_batches_hold_many_sizes_at_the_same_shares() -> None:
    samples = corpus()
    stage = Stage(mix=Mix(0.5), batching=NATIVE)
    order = SampleOrder(samples, stage, 256, 17, "2_audio")
    rows = np.array([[draw.row for draw in order.batch(step)] for step in range(200)])
    assert all(len(set(samples["width"].to_numpy()[step])) == 3 for step in rows)
    assert samples["audio_eligible"].to_numpy()[rows].mean() == pytest.approx(0.5, abs=0.01)


def test_a_stage_0_is_composed_in_and_the_graph_follows(tmp_path: Path) -> None:
    assert list(compose("demo", conf=CONF).stages) == list(STAGES), "the demo trains none"
    params = compose("demo", ["stages.0_text_video.active=true"], CONF)
    assert list(params.stages) == ["0_text_video", *STAGES]
    assert params.stages["1_text_image"].parent == "0_text_video" and params.stages["0_text_video"].parent is None
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text("[core]\n    no_scm = true\n")
    (tmp_path / "dvc.yaml").symlink_to(CONF.parent / "dvc.yaml")
    (tmp_path / "params.yaml").write_text(dump(params))
    graph = nodes(tmp_path)
    assert graph["train@0_text_video"].after == ("encode",)
    assert graph["train@1_text_image"].after == ("encode", "train@0_text_video")
    with pytest.raises(UserError, match=r"stages.2_audio.starts_from is set by composition"):
        compose("demo", ["stages.2_audio.starts_from=x"], CONF)


def test_repeats_are_logged_and_too_many_are_a_warning(caplog) -> None:
    caplog.set_level(logging.INFO)
    samples = corpus(1000)
    stage = Stage(steps=100, mix=Mix(0.5))
    repeats = log_draws(SampleOrder(samples, stage, 20, 17, "2_audio"), samples, settings(stage, "2_audio"))
    eligible = samples["audio_eligible"].sum()
    assert repeats["audio"] == pytest.approx(1000 / eligible) and repeats["other"] == pytest.approx(
        1000 / (1000 - eligible)
    )
    assert "times where fit for sound" in caplog.text and not [r for r in caplog.records if r.levelname == "WARNING"]
    few = replace(stage, data=StageData(max_repeats_per_clip=5.0))
    log_draws(SampleOrder(samples, few, 20, 17, "2_audio"), samples, settings(few, "2_audio"))
    assert "max_repeats_per_clip (5)" in caplog.text


def test_a_mix_that_cannot_be_met_is_named(caplog) -> None:
    same = np.arange(100) < 13
    samples = one_size_a_clip(audio_eligible=same, pose_eligible=same, width=32, height=32)
    stage = Stage(mix=Mix(0.5, 0.25))
    log_draws(SampleOrder(samples, stage, 8, 17, "3_pose"), samples, settings(stage))
    assert "mix.audio_eligible is 0.5, but 25.0% of the draws are: 13.0% of the clips" in caplog.text


def test_frozen_and_trainable_parameters_are_counted_and_stay_put() -> None:
    model = random_model()
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    every = sum(sizes.values())
    begins = {"base": ("base.",), "audio": ("audio_",), "pose": ("pose_",)}
    for groups in ((), ("base",), ("audio",), ("pose",), ("base", "audio"), ("base.dual_blocks.0.",)):
        expected = tuple(begin for group in groups for begin in begins.get(group, (group,)))
        counts = freeze(model, groups, "2_audio")
        frozen = sum(size for name, size in sizes.items() if expected and name.startswith(expected))
        assert (counts.frozen, counts.trainable) == (frozen, every - frozen), groups
        still = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
        assert still == {name for name in sizes if expected and name.startswith(expected)}
    with pytest.raises(UserError, match=r"stages.2_audio.frozen holds 'hands': .* base, text, audio, pose"):
        freeze(model, ("hands",), "2_audio")
    with pytest.raises(UserError, match="nothing is left to train"):
        freeze(model, ("base", "audio", "pose"), "2_audio")


def test_a_missing_parent_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNIHUMAN_HOME", str(tmp_path / "home"))
    write_encoded(tmp_path / "encoded", [(True, True)])
    second = replace(FIRST, name="2_audio", stage=Stage(parent="1_text_image", introduces=("audio",)))
    with pytest.raises(UserError, match=r"stages.2_audio.parent is 1_text_image: .* `dvc repro train@1_text_image`"):
        train_stage(second, tmp_path / "encoded", tmp_path / "models")


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_stage_leaves_what_is_frozen_as_it_was_and_keeps_the_counts(tmp_path: Path, monkeypatch, optimizer) -> None:
    monkeypatch.setenv("OMNIHUMAN_HOME", str(tmp_path / "home"))
    write_encoded(tmp_path / "encoded", [(True, True)])
    training = replace(FIRST.training, optimizer=optimizer)
    train_stage(replace(FIRST, training=training), tmp_path / "encoded", tmp_path / "models")
    stage = Stage(parent=FIRST.name, introduces=("audio",), steps=2, frozen=("base",), activate=Activation(1, 1, 1, 0))
    train_stage(
        replace(FIRST, name="2_audio", stage=stage, training=training), tmp_path / "encoded", tmp_path / "models"
    )
    (before, _), (after, description) = (load_model(tmp_path / "models" / name) for name in (FIRST.name, "2_audio"))
    moved = {name for name, tensor in after.state_dict().items() if not tensor.equal(before.state_dict()[name])}
    assert moved and not any(name.startswith("base.") for name in moved)
    frozen = sum(p.numel() for name, p in after.named_parameters() if name.startswith("base."))
    assert description.parameters == {
        "frozen": frozen,
        "trainable": sum(p.numel() for p in after.parameters()) - frozen,
    }
