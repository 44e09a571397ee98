"""Draws, activations, resume, and stages without new data."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from tests.tiny import CONFIG, WIDTHS, random_model, write_encoded

from omnihuman.config.schema.compute import Compute
from omnihuman.config.schema.diffusion import Diffusion
from omnihuman.config.schema.stage import Activation, Mix, Stage, Training
from omnihuman.data.shards import EncodedClip
from omnihuman.errors import UserError
from omnihuman.model.checkpoint import load_model
from omnihuman.training import run as run_module
from omnihuman.training.dataset import (
    SampleSettings,
    StagePacks,
    active_conditions,
    make_sample,
    pack_samples,
    starts_in_midstream,
)
from omnihuman.training.module import StageModule, learning_rate_share, sample_losses
from omnihuman.training.muon import Muon
from omnihuman.training.optimizer import make_optimizer
from omnihuman.training.run import StageRun, stage_key, train_stage
from omnihuman.training.sampling import Draw, SampleOrder, draw_weights

TRAINING = Training(global_batch_size=2, warmup_steps=2, checkpoint_every_steps=2, log_every_steps=1)
FIRST = StageRun("1_text_image", Stage(steps=4), TRAINING, CONFIG, Diffusion(), seed=3)


def settings(activate: Activation) -> SampleSettings:
    return SampleSettings("2_audio", Stage(activate=activate), 17, 0.5, 0.4, 6, Diffusion())


def test_both_shares_of_the_mix_are_met_at_once():
    random = np.random.default_rng(0)
    audio, pose = random.random(500) < 0.13, random.random(500) < 0.2
    weights = draw_weights(audio, pose, Mix(audio_eligible=0.5, pose_eligible=0.4))
    assert weights[audio].sum() == pytest.approx(0.5, abs=1e-6)
    assert weights[pose].sum() == pytest.approx(0.4, abs=1e-6)
    uniform = draw_weights(audio, pose, Mix())
    assert np.ptp(uniform) == 0


def test_a_share_without_a_pool_is_left_out():
    nobody = np.zeros(5, bool)
    assert draw_weights(nobody, nobody, Mix(audio_eligible=0.5)).tolist() == pytest.approx([0.2] * 5)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_mix_of_nothing_or_everything(share: float):
    audio = np.array([True, False, False, True])
    weights = draw_weights(audio, np.zeros(4, bool), Mix(audio_eligible=share))
    assert weights[audio].sum() == share and weights.sum() == 1.0


def test_activation_rates_and_principle_one():
    drawn = [
        active_conditions(settings(Activation(0.9, 0.7, 0.5, 0.25)), i, has_audio=True, has_pose=True)
        for i in range(20_000)
    ]
    for name, share in (
        ("text", 0.9),
        ("reference", 0.7),
        ("audio", 0.5),
        ("pose", 0.25),
        ("motion", 0.5),
        ("reference_pose", 0.4),
    ):
        assert np.mean([getattr(d, name) for d in drawn]) == pytest.approx(share, abs=0.015)
    assert abs(np.corrcoef([d.audio for d in drawn], [d.pose for d in drawn])[0, 1]) < 0.03
    always = settings(Activation(1.0, 1.0, 1.0, 1.0))
    never = [active_conditions(always, i, has_audio=False, has_pose=False) for i in range(100)]
    assert not any(d.audio or d.pose for d in never)


def test_order_is_a_pure_function_of_the_step():
    samples = pd.DataFrame(
        {"audio_eligible": [True, False] * 6, "pose_eligible": [False] * 12, "width": [32] * 6 + [48] * 6, "height": 32}
    ).assign(area_pixels=1024, larger_area_pixels=0)
    one, two = (SampleOrder(samples, Stage(mix=Mix(audio_eligible=0.8)), 4, 17, "2_audio") for _ in range(2))
    assert [one.batch(s) for s in range(20)] == [two.batch(s) for s in range(20)]
    assert one.batch(3) != one.batch(4)
    for step in range(20):
        assert len({samples["width"][draw.row] for draw in one.batch(step)}) == 1
    rows = [draw.row for step in range(500) for draw in one.batch(step)]
    assert samples["audio_eligible"].to_numpy()[rows].mean() == pytest.approx(0.8, abs=0.03)


def test_batches_carry_conditions_of_eligible_clips_only(tmp_path):
    write_encoded(tmp_path / "encoded", [(True, False), (False, True)])
    samples = pd.read_parquet(tmp_path / "encoded" / "samples.parquet")
    order = SampleOrder(samples, Stage(), 8, 17, "3_pose")
    everything = replace(settings(Activation(1, 1, 1, 1)), stage_name="3_pose")
    batches = StagePacks(samples, tmp_path / "encoded", order, everything, np.zeros((1, 64), np.float32))
    rows = np.array([draw.row for draw in order.batch(0)])
    ((part,),) = batches.packs(0)
    conditions = part.conditions
    assert conditions.audio_on.tolist() == (rows == 0).tolist()
    assert conditions.pose_on.tolist() == (rows == 1).tolist()


def test_samples_in_midstream_share_a_pack_with_others():
    """As long as the share says, one latent shorter, and the loss of each is what it is alone."""
    random = np.random.default_rng(5)
    latents = random.standard_normal((2, WIDTHS.latent_channels, 5, 2, 2)).astype(np.float16)
    clip = EncodedClip(
        latents, np.array([0, 20], np.int32), latents[:, :, 0], np.array([0, 20], np.int32),
        random.standard_normal((40, 1, WIDTHS.speech_width)).astype(np.float16), np.zeros(0, np.int16),
        random.random((40, 17, 3), dtype=np.float32), random.standard_normal((2, 64)).astype(np.float16),
    )  # fmt: skip
    midstream = replace(settings(Activation(1, 1, 1, 1)), motion_frames_share=0.5, midstream_share=0.5)
    samples = []
    for index in range(400):
        active = active_conditions(midstream, index, has_audio=True, has_pose=True)
        sample = make_sample(clip, Draw(0, index), active, midstream, np.zeros((1, 64), np.float32))
        assert sample.latents.shape[2] == (4 if starts_in_midstream(midstream, index, active) else 5)
        assert sample.conditions.keypoints.shape[1] == (16 if sample.latents.shape[2] == 4 else 17)
        assert active.motion or sample.latents.shape[2] == 5
        samples.append(sample)
    assert 0.2 < np.mean([sample.latents.shape[2] == 4 for sample in samples]) < 0.3
    model, few = random_model(), samples[:16]
    pack = pack_samples(few)
    assert {part.latents.shape[2] for part in pack} == {4, 5}
    together = sample_losses(model, pack, Diffusion())
    alone = {id(sample): sample_losses(model, (sample,), Diffusion()).item() for sample in few}
    in_order = [alone[id(s)] for part in pack for s in few if s.latents.shape[2] == part.latents.shape[2]]
    np.testing.assert_allclose(together.detach().numpy(), in_order, rtol=1e-4)


def test_learning_rate_warms_up_and_decays():
    shares = [learning_rate_share(step, 100, 10) for step in range(101)]
    assert shares[0] == 0.1 and shares[10] == 1.0 and shares[100] == pytest.approx(0.05)
    assert shares[10:] == sorted(shares[10:], reverse=True)


def weights(folder) -> dict[str, torch.Tensor]:
    return load_model(folder)[0].state_dict()


def assert_equal_weights(one, two) -> None:
    for name, tensor in weights(one).items():
        torch.testing.assert_close(tensor, weights(two)[name], rtol=0, atol=0, msg=name)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_killed_and_resumed_equals_uninterrupted(tmp_path, monkeypatch, optimizer):
    first = replace(FIRST, training=replace(TRAINING, optimizer=optimizer))
    write_encoded(tmp_path / "encoded", [(True, True), (True, False), (False, False)])
    monkeypatch.setenv("OMNIHUMAN_HOME", str(tmp_path / "home-a"))
    train_stage(first, tmp_path / "encoded", tmp_path / "uninterrupted")

    monkeypatch.setenv("OMNIHUMAN_HOME", str(tmp_path / "home-b"))
    finished_steps = []
    original = StageModule.training_step

    def dies_at_step_three(self, batch, batch_idx):
        if len(finished_steps) == 3:
            raise KeyboardInterrupt
        finished_steps.append(batch_idx)
        return original(self, batch, batch_idx)

    monkeypatch.setattr(StageModule, "training_step", dies_at_step_three)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        train_stage(first, tmp_path / "encoded", tmp_path / "resumed")
    assert not (tmp_path / "resumed" / "1_text_image").exists()
    monkeypatch.setattr(StageModule, "training_step", original)
    train_stage(first, tmp_path / "encoded", tmp_path / "resumed")
    assert_equal_weights(tmp_path / "uninterrupted" / "1_text_image", tmp_path / "resumed" / "1_text_image")
    curves = [(tmp_path / run / "1_text_image" / "loss.csv").read_text() for run in ("uninterrupted", "resumed")]
    assert curves[0] == curves[1] and len(curves[0].splitlines()) == 5


@pytest.mark.parametrize(("before", "after"), [(1, 3), (2, 3)])
def test_another_number_of_micro_steps_goes_on(tmp_path, monkeypatch, before: int, after: int):
    """The same work folder, so that neither the stage's key nor its check of the run knows the number."""
    first = replace(FIRST, stage=Stage(steps=6), training=replace(TRAINING, global_batch_size=6))
    write_encoded(tmp_path / "encoded", [(True, True), (True, False), (False, False)])
    monkeypatch.setenv("OMNIHUMAN_HOME", str(tmp_path / "home"))
    train_stage(first, tmp_path / "encoded", tmp_path / "whole")
    original, sizes = StageModule.training_step, []

    def dies_in_step_five(self, batch, batch_idx):
        if len(sizes) == 4 * before:
            raise KeyboardInterrupt
        sizes.append(sum(len(part.sigma) for part in batch))
        return original(self, batch, batch_idx)

    monkeypatch.setattr(StageModule, "training_step", dies_in_step_five)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        train_stage(first, tmp_path / "encoded", tmp_path / "parts", compute=Compute("cpu", accumulate=before))
    assert sizes == [6 // before] * 4 * before
    sizes.clear()
    monkeypatch.setattr(StageModule, "training_step", original)
    monkeypatch.setattr(
        StageModule, "on_train_batch_start", lambda self, batch, _: sizes.append(sum(len(p.sigma) for p in batch))
    )
    train_stage(first, tmp_path / "encoded", tmp_path / "parts", compute=Compute("cpu", accumulate=after))
    assert sizes == [6 // after] * 2 * after, "it went on after step 4"
    curves = [
        np.loadtxt(tmp_path / run / "1_text_image/loss.csv", skiprows=1, delimiter=",") for run in ("whole", "parts")
    ]
    np.testing.assert_allclose(*curves, rtol=0, atol=2e-5)
    for name, tensor in weights(tmp_path / "whole" / "1_text_image").items():
        torch.testing.assert_close(tensor, weights(tmp_path / "parts" / "1_text_image")[name], rtol=0, atol=1e-4)


@pytest.mark.parametrize("shape", [(12, 30), (30, 12), (16, 16)])
def test_muon_steps_as_the_one_of_torch_does_but_for_its_rounding(shape: tuple[int, int]):
    draw = torch.Generator().manual_seed(3)
    start = [torch.randn(*shape, generator=draw) for _ in range(2)]
    ours, theirs = ([torch.nn.Parameter(matrix.clone()) for matrix in start] for _ in range(2))
    settings = {"lr": 0.02, "weight_decay": 0.1}
    optimizers = Muon(ours, **settings), torch.optim.Muon(theirs, **settings)
    for _ in range(3):
        gradients = [torch.randn(*shape, generator=draw) for _ in range(2)]
        for parameters, optimizer in zip((ours, theirs), optimizers, strict=True):
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient.clone()
            optimizer.step()
    for one, other, before in zip(ours, theirs, start, strict=True):
        assert (one - other).norm() < 0.03 * (other - before).norm(), "bfloat16 rounds to 3 digits"


def test_muon_takes_the_matrices_of_the_blocks_and_adamw_the_rest():
    model = random_model()
    optimizer = make_optimizer(model, replace(TRAINING, optimizer="muon"), 1e-3)
    matrices, *rest = (set(map(id, group["params"])) for group in optimizer.param_groups)
    names = {name for name, parameter in model.named_parameters() if id(parameter) in matrices}
    assert {"base.dual_blocks.0.qkv.to_q.weight", "audio_attention.0.to_kv.weight"} <= names
    assert all("blocks." in name or "audio_attention" in name for name in names)
    assert all("modulation" not in name and name.endswith("weight") for name in names)
    assert set.union(matrices, *rest) == set(map(id, model.parameters()))
    assert sum(map(len, (matrices, *rest))) == len(list(model.parameters()))

    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        assert not torch.equal(parameter, before[name]), name
    name = "base.single_blocks.0.proj_mlp.weight"
    step = model.get_parameter(name).detach() - before[name]
    singular = torch.linalg.svdvals(step)
    assert singular.max() / singular.min() < 3  # alike in all directions, unlike the gradient's own spread


def test_a_gradient_that_is_no_number_stops_before_the_weights_change(tmp_path, monkeypatch):
    monkeypatch.setenv("OMNIHUMAN_HOME", str(tmp_path / "home"))
    write_encoded(tmp_path / "encoded", [(True, True)])
    original = StageModule.training_step

    def with_infinite_slope(self, batch, batch_idx):
        loss, bias = original(self, batch, batch_idx), self.model.base.proj_out.bias.sum()
        return loss + (bias - bias.detach()).abs().sqrt() if len(self.losses) == 3 else loss

    monkeypatch.setattr(StageModule, "training_step", with_infinite_slope)
    with pytest.raises(UserError, match="the gradient is no number at step 3, whose samples are of the clips clip-0"):
        train_stage(FIRST, tmp_path / "encoded", tmp_path / "models")


def test_weights_that_are_no_numbers_are_not_saved(tmp_path, monkeypatch):
    """As under DeepSpeed, whose gradients nobody sees before the step."""
    monkeypatch.setenv("OMNIHUMAN_HOME", str(tmp_path / "home"))
    write_encoded(tmp_path / "encoded", [(True, True)])

    def breaks(self, optimizer):
        if len(self.losses) == 4:
            self.model.base.proj_out.bias.grad.fill_(float("nan"))

    monkeypatch.setattr(StageModule, "on_before_optimizer_step", breaks)
    with pytest.raises(UserError, match=r"after step 4 \d+ weights hold values that are no numbers"):
        train_stage(FIRST, tmp_path / "encoded", tmp_path / "models")
    (saved,) = (tmp_path / "home/work").glob("*/checkpoints/step-*")
    assert saved.name == "step-00000002" and not (tmp_path / "models").exists()


def test_stage_without_new_data_passes_weights_on_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("OMNIHUMAN_HOME", str(tmp_path / "home"))
    write_encoded(tmp_path / "encoded", [(True, False)])
    train_stage(FIRST, tmp_path / "encoded", tmp_path / "models")
    third = replace(FIRST, name="3_pose", stage=Stage(parent="1_text_image", introduces=("pose",), steps=2))
    train_stage(third, tmp_path / "encoded", tmp_path / "models")
    assert_equal_weights(tmp_path / "models" / "1_text_image", tmp_path / "models" / "3_pose")
    assert (
        "no training clip is eligible for pose"
        in json.loads((tmp_path / "models/3_pose/model.json").read_text())["note"]
    )


def test_how_often_something_is_logged_begins_no_new_work(tmp_path):
    write_encoded(tmp_path / "encoded", [(True, True)])

    def key(**changes) -> str:
        return stage_key(replace(FIRST, training=replace(TRAINING, **changes)), tmp_path / "encoded", tmp_path)

    assert key() == key(log_every_steps=7, validate_every_steps=3, probe_every_steps=2, keep_checkpoints=9)
    assert len({key(), key(ema_decay=0.5), key(global_batch_size=4), key(weight_decay=0.5)}) == 4


def test_what_is_said_to_look_on_exists():
    package = Path(run_module.__file__).parents[1]
    assert all((package / name).exists() for name in (*run_module._CODE, *run_module._CODE_THAT_LOOKS_ON))


def test_no_data_at_all_is_the_users_error(tmp_path):
    write_encoded(tmp_path / "encoded", [(True, True)], split="test")
    with pytest.raises(UserError, match="no clip of the training split"):
        train_stage(FIRST, tmp_path / "encoded", tmp_path / "models")


def test_parent_of_another_shape_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("OMNIHUMAN_HOME", str(tmp_path / "home"))
    write_encoded(tmp_path / "encoded", [(True, True)])
    train_stage(FIRST, tmp_path / "encoded", tmp_path / "models")
    child = replace(
        FIRST,
        name="2_audio",
        stage=Stage(parent="1_text_image", steps=1),
        model=replace(CONFIG, width=64, rope_axes=(8, 12, 12)),
    )
    with pytest.raises(UserError, match="train the parent again"):
        train_stage(child, tmp_path / "encoded", tmp_path / "models")


@pytest.mark.parametrize("start", [{"parent": "1_text_image"}, {"base": "models/1_text_image"}])
def test_a_missing_or_misfit_parent_is_named_and_nothing_stands_in_the_way_of_the_next_start(
    start: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    encoded, models, work = tmp_path / "encoded", tmp_path / "models", tmp_path / "work"
    write_encoded(encoded, [(True, True)])
    child = replace(FIRST, name="2_audio", stage=Stage(**start, steps=2))
    with pytest.raises(UserError, match=r"models/1_text_image/model.safetensors is missing"):
        train_stage(child, encoded, models, work)
    with pytest.raises(UserError, match="is missing"):
        stage_key(child, encoded, models)
    assert not work.exists()
    wide = replace(FIRST, model=replace(CONFIG, width=64, rope_axes=(8, 12, 12)), stage=Stage(steps=1))
    train_stage(wide, encoded, models, tmp_path / "parent's work")
    with pytest.raises(UserError, match="again"):
        train_stage(child, encoded, models, work)
    train_stage(replace(FIRST, stage=Stage(steps=1)), encoded, models, tmp_path / "parent's other work")
    train_stage(child, encoded, models, work)
    assert load_model(models / "2_audio")[1].num_steps == 2
