"""A step's draws divide over ranks and packs: nothing lost, within the budget, balanced, the same for every world."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tests.test_sampling import corpus, packs_of, settings
from tests.test_training import FIRST
from tests.tiny import CONFIG, ENCODERS, WIDTHS, random_clip, random_model, write_encoded

from omnihuman.batch import Pack
from omnihuman.config.schema.diffusion import Diffusion
from omnihuman.config.schema.stage import Activation, Batching, Mix, Stage, StageData
from omnihuman.data.shards import save_shard
from omnihuman.errors import UserError
from omnihuman.training.cost import DrawFlops, cost_of_draws
from omnihuman.training.module import sample_losses
from omnihuman.training.packing import Division, TokenCounts
from omnihuman.training.run import train_stage
from omnihuman.training.sampling import Draw, SampleOrder
from omnihuman.training.throughput import pack_size

NATIVE = Stage(
    activate=Activation(0.9, 0.7, 0.5, 0.25), mix=Mix(0.5, 0.5), batching=Batching(sizes="native"), steps=100
)


def test_tokens_are_those_of_video_reference_and_text() -> None:
    samples = pd.DataFrame({"width": [32, 64], "height": [48, 64]})
    tokens = TokenCounts(samples, ENCODERS, patch_size=2)  # nine frames: three latents
    assert tokens(Draw(0, 0)) == (3 + 1) * 2 * 3 + 6
    assert tokens(Draw(1, 0, num_latents=1)) == (1 + 1) * 4 * 4 + 6
    assert tokens.largest() == 4 * 16 + 6


@hypothesis_settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    world_size=st.integers(1, 4),
    per_rank=st.integers(1, 6),
    spare=st.integers(0, 60),
    seed=st.integers(0, 9),
)
def test_every_draw_is_computed_once_within_the_budget(
    sizes: list[int], world_size: int, per_rank: int, spare: int, seed: int
) -> None:
    samples = pd.DataFrame({"width": [8 * size for size in sizes], "height": 8})
    tokens = TokenCounts(samples, ENCODERS, 1)
    budget = tokens.largest() + spare
    rows = np.random.default_rng(seed).integers(len(sizes), size=world_size * per_rank)
    draws = [Draw(int(row), index) for index, row in enumerate(rows)]
    ranks = Division(budget, world_size, tokens).packs(draws)
    assert sorted(draw.index for packs in ranks for pack in packs for draw in pack) == list(range(len(draws)))
    assert len({len(packs) for packs in ranks}) == 1 and all(pack for packs in ranks for pack in packs)
    assert max(sum(map(tokens, pack)) for packs in ranks for pack in packs) <= budget
    assert all(pack == sorted(pack, key=lambda draw: draw.index) for packs in ranks for pack in packs)


def test_costs_balance_better_than_counting_samples() -> None:
    """Long samples cost more than in proportion."""
    samples = pd.DataFrame({"width": [64, 128, 256, 384, 512], "height": 64})
    tokens = TokenCounts(samples, replace(ENCODERS, num_frames=25), 1)
    rows = np.random.default_rng(1).integers(5, size=(20, 64))

    def cost(draw: Draw) -> float:
        return tokens(draw) + tokens(draw) ** 2 / 1000

    def imbalance(division: Division) -> float:
        """Mean over steps of the slowest rank's seconds over the mean rank's."""
        worst = []
        for step in rows:
            draws = [Draw(int(row), place) for place, row in enumerate(step)]
            seconds = [sum(cost(draw) for pack in packs for draw in pack) for packs in division.packs(draws)]
            worst.append(max(seconds) / np.mean(seconds))
        return float(np.mean(worst))

    by_count, by_cost = imbalance(Division(None, 8)), imbalance(Division(None, 8, tokens, cost))
    assert by_cost < 1.05 < 1.2 < by_count


def test_the_cost_of_a_draw_is_that_of_the_pack_which_it_becomes(tmp_path: Path) -> None:
    """Operations counted before anything is loaded equal those counted from the tensors, text apart."""
    write_encoded(tmp_path / "encoded", [(True, True), (True, False), (False, True), (False, False)])
    samples = pd.read_parquet(tmp_path / "encoded" / "samples.parquet")
    stage = replace(NATIVE, data=StageData(text_only_fraction=0.2, pictures_share=0.2))
    packs, seen = packs_of(tmp_path, stage, packs_per_step=8), set()
    for step in range(6):
        for (draw,), pack in zip(packs.draws(step), packs.packs(step), strict=True):
            conditions = pack[0].conditions
            encoders = replace(ENCODERS, max_text_tokens=int(conditions.text_mask.sum()))
            cost = DrawFlops(samples, encoders, CONFIG, settings(stage))
            forward_alone = pack_size(pack, CONFIG, WIDTHS, lambda name: False)
            assert cost(draw) == forward_alone.flops
            seen.add((draw.is_picture, bool(conditions.reference_on), bool(conditions.audio_on)))
    assert len(seen) >= 5, "of eight kinds"
    tokens = TokenCounts(samples, ENCODERS, CONFIG.patch_size)
    joint = replace(CONFIG, audio_fusion="joint_attention")
    assert cost_of_draws(samples, ENCODERS, joint, settings(stage), tokens) is tokens


def test_training_balances_its_ranks_by_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_encoded(tmp_path / "encoded", [(True, True), (True, False), (False, False)])
    monkeypatch.setenv("OMNIHUMAN_HOME", str(tmp_path / "home"))
    used, packs = [], Division.packs
    monkeypatch.setattr(Division, "packs", lambda self, *given: used.append(self.cost) or packs(self, *given))
    train_stage(FIRST, tmp_path / "encoded", tmp_path / "models")
    assert used and all(isinstance(cost, DrawFlops) for cost in used)


def test_the_draws_do_not_depend_on_ranks(tmp_path: Path) -> None:
    write_encoded(tmp_path / "encoded", [(True, True), (True, False), (False, True), (False, False)])
    alone = packs_of(tmp_path, NATIVE)
    expected = [samples_of(alone.packs(step)) for step in range(6)]
    for world_size in (2, 4):
        ranks = [
            packs_of(tmp_path, NATIVE, rank=rank, division=Division(world_size=world_size))
            for rank in range(world_size)
        ]
        for step in range(6):
            parts = [samples_of(rank.packs(step)) for rank in ranks]
            assert [len(part) for part in parts] == [8 // world_size] * world_size
            assert set.union(*parts) == expected[step], "activations, windows and noise come with the index"


def samples_of(packs: list[Pack]) -> set[tuple]:
    """Each sample as its noise's sum and its switches, which tell it from all others."""
    names = ("reference_on", "audio_on", "pose_on", "motion_on")
    return {
        (
            round(float(part.noise[i].sum()), 4),
            round(float(part.sigma[i]), 6),
            *(bool(getattr(part.conditions, name)[i]) for name in names),
        )
        for pack in packs
        for part in pack
        for i in range(len(part.sigma))
    }


def write_sizes(folder: Path, sides: list[int]) -> None:
    """An encoded folder of square clips of these sides in latents."""
    write_encoded(folder / "encoded", [(True, True)] * len(sides))
    random = np.random.default_rng(0)
    clips = [(f"clip-{i}", random_clip(random, height=side, width=side)) for i, side in enumerate(sides)]
    save_shard(folder / "encoded" / "shard-00000.safetensors", clips, ENCODERS)
    path = folder / "encoded" / "samples.parquet"
    samples = pd.read_parquet(path)
    samples["width"] = samples["height"] = [8 * side for side in sides]
    samples.to_parquet(path)


def test_gradients_of_packs_and_ranks_add_up_to_those_of_the_step(tmp_path: Path) -> None:
    write_sizes(tmp_path, [2, 3, 4])
    samples = pd.read_parquet(tmp_path / "encoded" / "samples.parquet")
    tokens = TokenCounts(samples, ENCODERS, 1)
    budget = 2 * tokens.largest()
    model = random_model()

    def gradient(world_size: int, budget: int | None) -> torch.Tensor:
        model.zero_grad()
        for rank in range(world_size):
            packs = packs_of(tmp_path, NATIVE, rank=rank, division=Division(budget, world_size, tokens))
            for pack in packs.packs(0):
                (sample_losses(model, pack, Diffusion()).sum() / 8).backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    whole = gradient(1, None)
    assert packs_of(tmp_path, NATIVE, division=Division(budget, 1, tokens)).draws(0)[1:]
    for world_size, of_ranks in ((1, budget), (2, None), (2, budget), (4, budget)):
        torch.testing.assert_close(gradient(world_size, of_ranks), whole, rtol=1e-4, atol=1e-5)


def test_what_cannot_be_divided_is_named() -> None:
    tokens = TokenCounts(pd.DataFrame({"width": [32] * 3, "height": 32}), ENCODERS, 1)
    Division(world_size=2, tokens=tokens).check(8, 1)
    Division(140, 2, tokens).check(8, 2)
    with pytest.raises(UserError, match=r"compute.max_tokens_per_pack is 140: 4 sample\(s\) of 70 tokens") as told:
        Division(140, 2, tokens).check(8, 1)
    assert "set it to 280, compute.accumulate to 2, or encode at smaller" in str(told.value)
    with pytest.raises(UserError, match=r"compute\.accumulate to 4, or"):  # three fit, but 3 is no divisor of 8
        Division(210, tokens=tokens).check(8, 1)
    with pytest.raises(UserError, match="set it to 560, encode at smaller"):
        Division(50, tokens=tokens).check(8, 1)
    draws = [Draw(0, index) for index in range(8)]
    assert [len(packs) for packs in Division(140, 2, tokens).packs(draws, 3)] == [3, 3]
    with pytest.raises(UserError, match="8 samples of at most 70 tokens do not fit 1 packs of max_tokens_per_pack"):
        Division(140, 2, tokens).packs(draws, 1)


def test_packs_of_a_large_corpus_are_full() -> None:
    """Few tokens of the budget stay empty when a step holds many draws."""
    samples = corpus()
    tokens = TokenCounts(samples, ENCODERS, 1)
    order = SampleOrder(samples, NATIVE, 256, 17, "3_pose")
    budget = 10 * tokens.largest()
    filled = []
    for step in range(5):
        packs = [pack for rank in Division(budget, 4, tokens).packs(order.batch(step)) for pack in rank]
        filled.append(sum(sum(map(tokens, pack)) for pack in packs) / (budget * len(packs)))
    assert np.mean(filled) > 0.8
