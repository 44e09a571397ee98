"""Losses of fixed triples: the same whatever the number of ranks or a resume, and training does not notice them."""

import multiprocessing
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from tests.tiny import CONFIG, ENCODERS, random_model, write_encoded

from omnihuman.batch import Pack
from omnihuman.config.schema.diffusion import Diffusion
from omnihuman.config.schema.stage import Activation, Stage, Training
from omnihuman.data.shard_reading import ShardReader, load_clip
from omnihuman.errors import UserError
from omnihuman.model.checkpoint import load_model
from omnihuman.training.evaluating import evaluating
from omnihuman.training.fit import StageRun
from omnihuman.training.module import StageModule, sample_losses
from omnihuman.training.ranks import Ranks
from omnihuman.training.run import train_stage
from omnihuman.training.validation import (
    SIGMAS,
    TripleSource,
    condition_subsets,
    fixed_triples,
    validation_losses,
    validation_set,
)

EVERYTHING = Activation(1, 1, 1, 1)
TRAINING = Training(
    global_batch_size=2, warmup_steps=2, checkpoint_every_steps=2, log_every_steps=1, validate_every_steps=2,
    validation_clips=3,
)  # fmt: skip
FIRST = StageRun("1_text_image", Stage(steps=4, activate=EVERYTHING), TRAINING, CONFIG, Diffusion(), seed=3)
ELIGIBLE = [(True, True), (True, False), (False, True), (True, True), (False, False)]


def held_out(folder: Path, eligible: list[tuple[bool, bool]] = ELIGIBLE, split: str = "test") -> Path:
    write_encoded(folder, eligible, split)
    return folder


def losses_of(model: torch.nn.Module, pack: Pack) -> torch.Tensor:
    with torch.no_grad():
        return sample_losses(model, pack, Diffusion())  # pyright: ignore[reportArgumentType]


ALONE = Ranks()


def measured(encoded: Path, ranks: Ranks = ALONE) -> dict[str, float]:
    model = random_model()
    clips = validation_set(encoded, 5, EVERYTHING)
    losses = lambda pack: losses_of(model, pack)  # noqa: E731
    return validation_losses(
        losses, clips, condition_subsets(EVERYTHING), TripleSource(ShardReader(encoded), ENCODERS), ranks
    )


def test_subsets_grow_by_what_the_stage_knows() -> None:
    assert condition_subsets(Activation(0.9, 0.9, 0.0, 0.0)) == {"text": (), "text_reference": ("reference",)}
    assert list(condition_subsets(EVERYTHING).values())[-1] == ("reference", "audio", "pose")
    assert len(condition_subsets(EVERYTHING)) == 4


def test_clips_that_may_carry_everything_come_first_and_the_choice_never_changes(tmp_path: Path) -> None:
    encoded = held_out(tmp_path / "encoded")
    chosen = validation_set(encoded, 3, EVERYTHING)
    assert chosen.held_out and {clip.clip_id for clip in chosen.clips[:2]} == {"clip-0", "clip-3"}
    assert chosen == validation_set(encoded, 3, EVERYTHING)
    assert validation_set(encoded, 2, EVERYTHING).clips == chosen.clips[:2]
    seen = validation_set(held_out(tmp_path / "seen", split="train"), 3, EVERYTHING)
    assert not seen.held_out and len(seen.clips) == 3


def test_held_out_clips_alone_are_taken_where_there_are_some(tmp_path: Path) -> None:
    encoded = held_out(tmp_path / "encoded")
    table = pd.read_parquet(encoded / "samples.parquet")
    table.loc[table["clip_id"] != "clip-4", "split"] = "train"
    table.to_parquet(encoded / "samples.parquet")
    assert [clip.clip_id for clip in validation_set(encoded, 3, EVERYTHING).clips] == ["clip-4"]


def test_a_triple_is_fixed_by_the_clips_name(tmp_path: Path) -> None:
    encoded = held_out(tmp_path / "encoded")
    clip = load_clip(encoded / "shard-00000.safetensors", "clip-0")
    one, again = (fixed_triples(clip, "clip-0", ("reference",), 6) for _ in range(2))
    other, more = fixed_triples(clip, "clip-9", (), 6), fixed_triples(clip, "clip-0", ("reference", "audio"), 6)
    assert torch.equal(one.noise, again.noise) and not torch.equal(one.noise, other.noise)
    assert torch.equal(one.noise, more.noise) and torch.equal(one.latents, more.latents)
    assert one.sigma.tolist() == list(SIGMAS) == [i / 8 for i in range(1, 9)]
    assert not torch.equal(one.noise[0], one.noise[1]), "each level has noise of its own"
    assert one.conditions.reference_on.all() and not one.conditions.audio_on.any()
    assert more.conditions.audio_on.all() and not more.conditions.pose_on.any()
    assert not more.conditions.motion_on.any()


def test_figures_are_means_over_eligible_clips(tmp_path: Path) -> None:
    encoded = held_out(tmp_path / "encoded")
    figures = measured(encoded)
    model, name = random_model(), "text_reference_audio"
    clips = [f"clip-{i}" for i, (audio, _) in enumerate(ELIGIBLE) if audio]
    shard = encoded / "shard-00000.safetensors"
    table = torch.stack(
        [losses_of(model, (fixed_triples(load_clip(shard, c), c, ("reference", "audio"), 6),)) for c in clips]
    )
    expected = dict(zip((f"{name}/sigma_{sigma:.3f}" for sigma in SIGMAS), table.mean(0).tolist(), strict=True))
    for key, value in expected.items():
        assert figures[key] == pytest.approx(value, rel=1e-6)
    assert figures[f"{name}/mean"] == pytest.approx(table.mean().item(), rel=1e-6)
    assert len(figures) == 4 * 9
    assert len({round(figures[f"{subset}/mean"], 6) for subset in condition_subsets(EVERYTHING)}) == 4


def test_a_subset_for_which_no_clip_is_eligible_is_absent(tmp_path: Path) -> None:
    figures = measured(held_out(tmp_path / "encoded", [(True, False)]))
    assert "text_reference_audio/mean" in figures and "text_reference_audio_pose/mean" not in figures


def one_rank(rank: int, world_size: int, folder: Path) -> None:
    torch.set_num_threads(1)
    rendezvous = f"file://{folder}/rendezvous"
    torch.distributed.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=world_size)
    torch.save(measured(folder / "encoded", Ranks(rank, world_size)), folder / f"figures-{rank}.pt")
    torch.distributed.destroy_process_group()


def two_ranks(target: Callable[[int, int, Path], None], folder: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ranks = [context.Process(target=target, args=(rank, 2, folder)) for rank in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(120)
    assert [process.exitcode for process in ranks] == [0, 0]


@pytest.mark.slow
def test_figures_are_bit_by_bit_the_same_on_one_rank_and_on_two(tmp_path: Path) -> None:
    encoded = held_out(tmp_path / "encoded")  # five clips: the ranks have not equally many
    two_ranks(one_rank, tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    alone = measured(encoded)
    torch.set_num_threads(threads)
    assert [torch.load(tmp_path / f"figures-{rank}.pt") for rank in range(2)] == [alone, alone]


def without_a_shard(encoded: Path) -> Path:
    """The table names a second shard, which is not there, for the fourth clip."""
    table = pd.read_parquet(encoded / "samples.parquet")
    table.loc[3, "shard"] = "shard-00001.safetensors"
    table.to_parquet(encoded / "samples.parquet")
    return encoded


def failing_rank(rank: int, world_size: int, folder: Path) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world_size
    )
    try:
        measured(folder / "encoded", Ranks(rank, world_size))
    except UserError as error:
        (folder / f"said-{rank}").write_text(str(error))
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_a_clip_that_one_rank_cannot_read_ends_all_ranks(tmp_path: Path) -> None:
    without_a_shard(held_out(tmp_path / "encoded"))
    two_ranks(failing_rank, tmp_path)
    own, other = sorted(((tmp_path / f"said-{rank}").read_text() for rank in range(2)), key=len)
    assert own.startswith(str(tmp_path)) and "shard-00001.safetensors" in own
    assert other.startswith("rank ") and "shard-00001.safetensors" in other


def test_shards_of_held_out_clips_are_missed_before_the_first_step(tmp_path: Path) -> None:
    encoded = held_out(tmp_path / "encoded")
    table = pd.read_parquet(encoded / "samples.parquet")
    table.loc[:2, "split"] = "train"
    table.to_parquet(encoded / "samples.parquet")
    reported: list[int] = []
    with pytest.raises(UserError, match=r"shard-00001\.safetensors"):
        train_stage(
            FIRST,
            without_a_shard(encoded),
            tmp_path / "models",
            tmp_path / "work",
            lambda step, _: reported.append(step),
        )
    assert not reported and not list((tmp_path / "work/checkpoints").iterdir())


def test_modes_and_random_state_are_what_they_were() -> None:
    model = random_model().train()
    model.audio_attention.eval()
    modes = [part.training for part in model.modules()]
    torch.manual_seed(1)
    random.seed(1)
    expected = torch.rand(1).item(), random.random()
    torch.manual_seed(1)
    random.seed(1)
    with evaluating(model):
        assert not any(part.training for part in model.modules()) and not torch.is_grad_enabled()
        torch.rand(1), random.random()
    assert (torch.rand(1).item(), random.random()) == expected
    with pytest.raises(ZeroDivisionError), evaluating(model):
        raise ZeroDivisionError
    assert [part.training for part in model.modules()] == modes and torch.is_grad_enabled()


Curve = dict[tuple[int, str], float]


def trained(folder: Path, encoded: Path, curve: Curve, run: StageRun = FIRST) -> dict[str, torch.Tensor]:
    def report(step: int, metrics: dict[str, float]) -> None:
        curve.update({(step, name): value for name, value in metrics.items() if name.startswith(("val", "loss"))})

    train_stage(run, encoded, folder, report=report)
    return load_model(folder / run.name)[0].state_dict()


def test_a_resumed_run_measures_the_same_and_training_does_not_notice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = held_out(tmp_path / "encoded", [(True, True)] * 6)
    table = pd.read_parquet(encoded / "samples.parquet")
    table.loc[:2, "split"] = "train"
    table.to_parquet(encoded / "samples.parquet")
    monkeypatch.setenv("OMNIHUMAN_HOME", str(tmp_path / "home"))
    whole: Curve = {}
    weights = trained(tmp_path / "whole", encoded, whole)
    assert {step for step, name in whole if name.startswith("validation/")} == {2, 4}
    assert whole[2, "validation/text_reference/mean"] != whole[4, "validation/text_reference/mean"]

    curve: Curve = {}
    original = StageModule.training_step

    def dies_after_step_three(self: StageModule, batch: Pack, batch_idx: int) -> torch.Tensor:
        if len(self.losses) == 3:
            raise KeyboardInterrupt
        return original(self, batch, batch_idx)

    monkeypatch.setattr(StageModule, "training_step", dies_after_step_three)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        trained(tmp_path / "resumed", encoded, curve)
    monkeypatch.setattr(StageModule, "training_step", original)
    resumed = trained(tmp_path / "resumed", encoded, curve)
    assert curve == whole

    unwatched = replace(FIRST, training=replace(TRAINING, validate_every_steps=0))
    bare: Curve = {}
    without = trained(tmp_path / "bare", encoded, bare, unwatched)
    assert bare and all(whole[key] == value for key, value in bare.items())
    for name, tensor in weights.items():
        assert torch.equal(tensor, without[name]) and torch.equal(tensor, resumed[name]), name


def test_clips_that_are_trained_on_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OMNIHUMAN_HOME", str(tmp_path / "home"))
    curve: Curve = {}
    trained(tmp_path / "models", held_out(tmp_path / "encoded", split="train"), curve)
    assert {name.split("/")[0] for _, name in curve} == {"loss", "validation_seen"}
    assert "no clip is held out" in caplog.text
