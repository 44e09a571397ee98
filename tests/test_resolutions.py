"""One clip at several resolutions: encoded once, drawn at the size that a phase allows, counted as one clip."""

import json
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.test_published_encode import SMALL, folder, run  # noqa: F401
from tests.test_sampling import corpus, settings
from tests.test_training import FIRST
from tests.tiny import ENCODERS, random_clip, write_encoded

from omnihuman.batch import Pack
from omnihuman.config.schema.encode import Encode
from omnihuman.config.schema.stage import Activation, Batching, Mix, Phase, Stage, StageData
from omnihuman.data.manifest import SAMPLES, one_row_a_clip, rows_within, write_table
from omnihuman.data.shard_reading import ShardReader, load_clip
from omnihuman.data.shards import Pictures, save_shard
from omnihuman.encoders.sizes import EncodedSize, encoded_sizes
from omnihuman.errors import UserError
from omnihuman.evaluation.held_out import held_out_windows
from omnihuman.storage.ranges import LocalFiles
from omnihuman.training import module
from omnihuman.training.dataset import stored_pictures
from omnihuman.training.packing import TokenCounts
from omnihuman.training.run import train_stage, training_clips
from omnihuman.training.sampling import SampleOrder
from omnihuman.training.shares import log_draws, realised_shares
from omnihuman.training.validation import validation_set

SHARD = "shard-00000.safetensors"
LOW, HIGH = 1024, 4096
PHASES = {"low": Phase(0.5, area_pixels=LOW), "high": Phase(0.5)}
STAGE = Stage(
    steps=40, activate=Activation(0.9, 0.7, 0.5, 0.25), mix=Mix(0.5, 0.5), data=StageData(text_only_fraction=0.25),
    batching=Batching("native"), phases=PHASES,
)  # fmt: skip


def both_sizes(clips: pd.DataFrame, has_high: np.ndarray) -> pd.DataFrame:
    """Each clip's row at LOW, after one of twice its sides at HIGH where it has that."""
    low = clips.assign(clip=range(len(clips)), area_pixels=LOW, larger_area_pixels=np.where(has_high, HIGH, 0))
    high = low.assign(area_pixels=HIGH, larger_area_pixels=0, width=2 * clips["width"], height=2 * clips["height"])
    return pd.concat([high[has_high], low]).sort_values("clip", kind="stable", ignore_index=True)


def test_a_clip_is_encoded_at_each_resolution_that_it_has_and_at_the_lowest() -> None:
    config = Encode(resolutions=(LOW, HIGH, 4 * HIGH))
    assert encoded_sizes(64, 64, config) == [EncodedSize(HIGH, 64, 64), EncodedSize(LOW, 32, 32)]
    assert encoded_sizes(64, 63, config) == [EncodedSize(LOW, 32, 32)]
    assert encoded_sizes(8, 8, config) == [EncodedSize(LOW, 32, 32)]
    assert len(encoded_sizes(1920, 1080, config)) == 3
    assert encoded_sizes(64, 64, Encode(resolutions=(1024, 1030))) == [EncodedSize(LOW, 32, 32)]


def test_a_phase_draws_each_clip_at_its_largest_size_within_and_the_same_clips_as_with_one_size() -> None:
    clips = corpus(600)
    has_high = np.random.default_rng(1).random(len(clips)) < 0.5
    samples = both_sizes(clips, has_high)
    order = SampleOrder(samples, STAGE, 64, 17, "3_pose")
    alone = SampleOrder(clips, replace(STAGE, phases={}), 64, 17, "3_pose")
    of_row = samples.to_dict("records")
    for step in range(STAGE.steps):
        drawn, expected = order.batch(step), alone.batch(step)
        rows = [of_row[draw.row] for draw in drawn]
        assert [row["clip"] for row in rows] == [draw.row for draw in expected], "clips count once, so shares stay"
        assert [(d.index, d.text_only) for d in drawn] == [(d.index, d.text_only) for d in expected]
        wanted = [HIGH if step >= 20 and has_high[row["clip"]] else LOW for row in rows]
        assert [row["area_pixels"] for row in rows] == wanted
    both, one = (
        realised_shares(made, settings(STAGE), table, 2560) for made, table in ((order, samples), (alone, clips))
    )
    assert both == one


def test_repeats_are_counted_by_clip_over_its_sizes() -> None:
    clips = corpus(200)
    samples = both_sizes(clips, np.ones(len(clips), bool))
    order = SampleOrder(samples, STAGE, 64, 17, "3_pose")
    alone = SampleOrder(clips, replace(STAGE, phases={}), 64, 17, "3_pose")
    assert log_draws(order, samples, settings(STAGE)) == pytest.approx(log_draws(alone, clips, settings(STAGE)))
    assert order.expected_draws().sum() == pytest.approx(STAGE.steps * 64)


def test_a_budget_of_tokens_counts_sizes_that_are_drawn(tmp_path: Path) -> None:
    samples = both_sizes(corpus(50), np.ones(50, bool))
    low = replace(STAGE, phases={"low": Phase(area_pixels=LOW)})
    drawn = SampleOrder(samples, low, 8, 17, "3_pose").expected_draws() > 0
    assert TokenCounts(samples, ENCODERS, 1).largest() > TokenCounts(samples[drawn], ENCODERS, 1).largest()
    assert len(rows_within(samples, LOW - 1)) == 0 and len(rows_within(samples, HIGH)) == 50


def write_two_sizes(place: Path, num_clips: int = 2, split: str = "train") -> None:
    """Clips of noise, each 64 x 64 and 32 x 32."""
    random = np.random.default_rng(0)
    write_encoded(place, [(True, True)] * num_clips, split)
    names = [f"clip-{number}" for number in range(num_clips)]
    large = [(name, random_clip(random, height=8, width=8)) for name in names]
    small = [(name, random_clip(random)) for name in names]
    smaller = [(name, Pictures(LOW, clip.latents, clip.references)) for name, clip in small]
    save_shard(place / SHARD, large, ENCODERS, smaller)
    rows = pd.read_parquet(place / "samples.parquet").to_dict("records")
    high = {"area_pixels": HIGH, "larger_area_pixels": 0, "width": 64, "height": 64}
    low = {"area_pixels": LOW, "larger_area_pixels": HIGH, "width": 32, "height": 32}
    write_table([row | size for row in rows for size in (high, low)], SAMPLES, place / "samples.parquet")


def test_a_smaller_size_shares_all_but_its_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_two_sizes(tmp_path / "encoded", 5)
    reader, asked = ShardReader(tmp_path / "encoded"), []
    large = reader.clip(SHARD, "clip-1")
    read = LocalFiles.read
    monkeypatch.setattr(LocalFiles, "read", lambda self, name, ranges: asked.extend(ranges) or read(self, name, ranges))
    small = reader.clip(SHARD, "clip-1", LOW)
    assert sum(stop - start for start, stop in asked) == sum(getattr(small, f.name).nbytes for f in fields(small))
    assert len(asked) <= 5, "one range more than for the largest"
    assert large.latents.shape[-2:] == (8, 8) and small.latents.shape[-2:] == (4, 4)
    for name in ("starts", "reference_frames", "speech", "sound", "keypoints", "text"):
        np.testing.assert_array_equal(getattr(large, name), getattr(small, name))
    with pytest.raises(UserError, match=r"does not hold clip-1.99.latents"):
        reader.clip(SHARD, "clip-1", 99)
    names = stored_pictures(pd.read_parquet(tmp_path / "encoded" / "samples.parquet"))
    assert names == {SHARD: [f"clip-{number}{size}" for number in range(5) for size in ("", f".{LOW}")]}
    reader.check(names, ENCODERS)
    with pytest.raises(UserError, match=r"does not hold clip-0.99 and 0 others"):
        reader.check({SHARD: ["clip-0", "clip-0.99"]}, ENCODERS)


def test_evaluation_and_validation_take_the_largest(tmp_path: Path) -> None:
    write_two_sizes(tmp_path / "encoded", 3, "test")
    items = held_out_windows(tmp_path / "encoded", "audio", 9, 0)
    assert [item.clip_id for item in items] == ["clip-0", "clip-1", "clip-2"]
    assert {item.clip.latents.shape[-1] for item in items} == {8}
    clips = validation_set(tmp_path / "encoded", 9, Activation(1, 1, 1, 1)).clips
    assert sorted(clip.clip_id for clip in clips) == ["clip-0", "clip-1", "clip-2"]


@pytest.mark.slow
def test_a_video_is_decoded_once_and_encoded_at_two_resolutions(folder: Path, monkeypatch) -> None:  # noqa: F811
    alone = {
        area: [load_clip(run(replace(SMALL, resolutions=(area,)), folder) / SHARD, name) for name in ("c0", "c1")]
        for area in (LOW, HIGH)
    }
    encoded = run(replace(SMALL, resolutions=(LOW, HIGH, 4 * HIGH)), folder)
    samples = pd.read_parquet(encoded / "samples.parquet")
    columns = ["clip_id", "area_pixels", "larger_area_pixels", "width", "status"]
    assert samples[columns].values.tolist() == [
        [name, *size, "ok"] for name in ("c0", "c1") for size in ((HIGH, 0, 64), (LOW, HIGH, 32))
    ]
    assert one_row_a_clip(samples)["width"].tolist() == [64, 64]
    reader = ShardReader(encoded)
    for number, name in enumerate(("c0", "c1")):
        large, small = reader.clip(SHARD, name), reader.clip(SHARD, name, LOW)
        for field in fields(large):
            same = alone[HIGH][number]
            np.testing.assert_array_equal(getattr(large, field.name), getattr(same, field.name), err_msg=field.name)
        # The decoder's own scaler and ours differ a little; these pictures are noise, which no scaler keeps alike.
        means = small.latents[:, :3].mean(axis=(2, 3, 4)), alone[LOW][number].latents[:, :3].mean(axis=(2, 3, 4))
        np.testing.assert_allclose(*means, atol=0.1)
        assert small.latents.shape == alone[LOW][number].latents.shape
    assert json.loads((encoded / "encoders.json").read_text())["resolutions"] == [LOW, HIGH, 4 * HIGH]


@pytest.mark.slow
@pytest.mark.parametrize("sizes", ["one_size", "native"])
def test_packs_grow_with_the_phase_and_a_clip_counts_once(tmp_path: Path, monkeypatch, sizes: str) -> None:
    monkeypatch.setenv("OMNIHUMAN_HOME", str(tmp_path / "home"))
    write_two_sizes(tmp_path / "encoded")
    widths: list[int] = []
    losses = module.sample_losses

    def spied(model, pack: Pack, config):
        widths.extend({part.latents.shape[-1] for part in pack})
        return losses(model, pack, config)

    monkeypatch.setattr(module, "sample_losses", spied)
    stage = Stage(steps=4, phases=PHASES, batching=Batching(sizes))
    train_stage(replace(FIRST, stage=stage), tmp_path / "encoded", tmp_path / "models")
    assert widths == [4, 4, 8, 8]
    described = json.loads((tmp_path / "models" / FIRST.name / "model.json").read_text())
    assert described["num_clips"] == training_clips(tmp_path / "encoded") == {"audio": 2, "pose": 2, "text": 2}
