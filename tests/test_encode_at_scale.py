"""The step `encode` in parts, on S3, with clips added later, and what it says that it will cost."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pandas as pd
import pytest
from tests.s3_server import BUCKET
from tests.small_project import wait_until
from tests.test_published_encode import SMALL, folder, inputs_of, run  # noqa: F401

from omnihuman.config.schema.encode import Encode
from omnihuman.data import encode_estimate
from omnihuman.data.encode_estimate import estimate
from omnihuman.data.encoding_plan import Plan, plan_encoding
from omnihuman.data.precompute import encode_part
from omnihuman.data.shard_reading import ShardReader, load_clip, place_of_shards
from omnihuman.errors import UserError
from omnihuman.evaluation.held_out import held_out_windows
from omnihuman.media.worker import Limits, run_guarded, worker_slot

ONE_A_SHARD = replace(SMALL, shard_clips=1)
TWO_SIZES = replace(SMALL, resolutions=(1024, 4096), shard_clips=1)


class Counting:
    """The local pool, which notes the ids of the clips that it is given."""

    def __init__(self) -> None:
        self.jobs: list[str] = []

    def __call__(self, function: Any, items: Any, limits: Limits, description: str) -> Iterator[Any]:
        self.jobs.extend(item.clip_id for item in items)
        return run_guarded(function, items, limits, description)


@pytest.fixture
def pool() -> Counting:
    return Counting()


def plan_of(config: Encode, folder: Path) -> Plan:  # noqa: F811
    return plan_encoding(config, inputs_of(folder))


def files_of(encoded: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in encoded.iterdir()}


def test_a_clip_that_is_added_is_the_only_one_to_be_encoded(folder: Path, pool: Counting) -> None:  # noqa: F811
    clips = pd.read_parquet(folder / "clips.parquet")
    clips[1:].to_parquet(folder / "clips.parquet")
    run(SMALL, folder, pool)
    clips.to_parquet(folder / "clips.parquet")
    encoded = run(SMALL, folder, pool)
    assert pool.jobs == ["c1", "c0"]
    assert pd.read_parquet(encoded / "samples.parquet")["clip_id"].tolist() == ["c0", "c1"]
    run(ONE_A_SHARD, folder, pool)
    assert pool.jobs == ["c1", "c0"], "another sharding encodes nothing"


def test_a_clip_that_failed_is_tried_again_and_the_others_are_not(folder: Path, pool: Counting) -> None:  # noqa: F811
    good = (folder / "v0.mp4").read_bytes()
    (folder / "v0.mp4").write_bytes(good[:100])
    encoded = run(SMALL, folder, pool)
    assert pd.read_parquet(encoded / "samples.parquet")["status"].tolist() == ["error", "ok"]
    (folder / "v0.mp4").write_bytes(good)
    encoded = run(SMALL, folder, pool)
    assert pd.read_parquet(encoded / "samples.parquet")["status"].tolist() == ["ok", "ok"]
    assert pool.jobs == ["c0", "c1", "c0"]


def test_parts_make_the_whole_byte_by_byte(folder: Path, pool: Counting) -> None:  # noqa: F811
    whole = files_of(run(TWO_SIZES, folder, pool))
    pool.jobs.clear()
    other = replace(TWO_SIZES, max_text_tokens=7)  # other work, so that nothing is kept yet
    assert encode_part(plan_of(other, folder), 1, 2, pool) == (1, 0) and pool.jobs == ["c0"]
    assert encode_part(plan_of(other, folder), 2, 2, pool) == (1, 0) and pool.jobs == ["c0", "c1"]
    assert encode_part(plan_of(other, folder), 2, 2, pool) == (1, 0)
    parts = files_of(run(other, folder, pool))
    assert pool.jobs == ["c0", "c1"]
    assert parts.keys() == whole.keys() and parts["samples.parquet"] == whole["samples.parquet"]


@pytest.mark.slow
def test_s3_gives_the_same_as_disk(
    folder: Path,  # noqa: F811
    s3_server: None,
    pool: Counting,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sources = pd.read_parquet(folder / "sources.parquet")
    sources.assign(split="test").to_parquet(folder / "sources.parquet")
    local = folder / "on_disk"
    run(TWO_SIZES, folder, pool).rename(local)
    on_disk = pd.read_parquet(local / "samples.parquet")
    contents = {f"c{i}": ShardReader(local).clip_at_all_sizes(f"shard-0000{i}.safetensors", f"c{i}") for i in (0, 1)}
    config = replace(TWO_SIZES, shards_at=f"s3://{BUCKET}/latents/v1")
    encoded = run(config, folder, pool)
    assert sorted(path.name for path in encoded.iterdir()) == [
        "empty_text.npy", "encoders.json", "samples.parquet", "shards_at.json",
    ]  # fmt: skip
    on_s3 = pd.read_parquet(encoded / "samples.parquet")
    pd.testing.assert_frame_equal(on_s3.drop(columns="shard"), on_disk.drop(columns="shard"))
    reader = ShardReader(place_of_shards(encoded))
    for clip_id, shard in on_s3.set_index("clip_id")["shard"].items():
        there, here = reader.clip_at_all_sizes(shard, str(clip_id)), contents[str(clip_id)]
        for one, other in zip([there[0], *there[1]], [here[0], *here[1]], strict=True):
            for name, value in vars(one).items():
                np.testing.assert_array_equal(value, vars(other)[name])
    (here,) = held_out_windows(local, "audio", 1, 0)
    (there,) = held_out_windows(encoded, "audio", 1, 0)
    np.testing.assert_array_equal(here.clip.latents, there.clip.latents)

    pool.jobs.clear()
    monkeypatch.setenv("OMNIHUMAN_HOME", str(folder / "another_machine"))
    run(config, folder, pool)
    assert pool.jobs == [], "what is there is not encoded again"
    client = boto3.client("s3")
    key = f"latents/v1/{on_s3['shard'][0]}"
    whole = client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
    for home, damaged in enumerate((b"truncated", whole[:-1])):
        client.put_object(Bucket=BUCKET, Key=key, Body=damaged)
        monkeypatch.setenv("OMNIHUMAN_HOME", str(folder / f"home {home}"))
        run(config, folder, pool)
        assert client.get_object(Bucket=BUCKET, Key=key)["Body"].read() == whole, "a damaged shard is made again"
    assert pool.jobs == ["c0", "c0"]
    with pytest.raises(UserError, match="NoSuchBucket"):
        run(replace(config, shards_at="s3://nobody-has-this/x"), folder, pool)


@pytest.mark.slow
def test_clips_of_a_shard_on_s3_come_back_where_others_failed(
    folder: Path,  # noqa: F811
    s3_server: None,
    pool: Counting,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = replace(TWO_SIZES, shard_clips=2, shards_at=f"s3://{BUCKET}/v2")
    good = (folder / "v0.mp4").read_bytes()
    (folder / "v0.mp4").write_bytes(good[:100])
    run(config, folder, pool)
    (folder / "v0.mp4").write_bytes(good)
    monkeypatch.setenv("OMNIHUMAN_HOME", str(folder / "another_machine"))
    samples = pd.read_parquet(run(config, folder, pool) / "samples.parquet")
    assert samples["status"].tolist() == ["ok"] * 4 and samples["shard"].nunique() == 1
    assert pool.jobs == ["c0", "c1", "c0"]


def test_an_estimate_times_clips_keeps_them_and_says_the_bytes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setattr(encode_estimate, "_TIMED_PER_WORKER", 1)
    before = estimate(plan_of(TWO_SIZES, folder))
    assert (before.num_clips, before.num_kept, before.num_timed, before.workers) == (2, 0, 1, 1)
    assert before.worker_seconds > 0 and before.video_seconds == pytest.approx(2 * 0.8)
    after = estimate(plan_of(TWO_SIZES, folder))
    assert (after.num_kept, after.num_timed) == (1, 1)
    encoded = run(TWO_SIZES, folder)
    really = sum(path.stat().st_size for path in encoded.glob("shard-*"))
    assert before.shard_bytes == pytest.approx(really, rel=0.05)
    assert estimate(plan_of(TWO_SIZES, folder)).shard_bytes == pytest.approx(really, rel=0.001)
    elsewhere = replace(TWO_SIZES, shards_at=str(folder / "elsewhere"))
    run(elsewhere, folder)
    monkeypatch.setenv("OMNIHUMAN_HOME", str(folder / "another_machine"))
    there = estimate(plan_of(elsewhere, folder))
    assert (there.num_kept, there.num_timed, there.worker_seconds) == (2, 0, 0.0)
    assert there.shard_bytes == there.bytes_there == really
    assert "2 clips, 1.6 s of video; 0 are" in str(before) and "1 on cpu" in str(before)
    assert "work: 2:46:41 h of one worker" in str(replace(before, worker_seconds=10_000.3))
    long = estimate(plan_of(replace(TWO_SIZES, num_frames=41), folder))
    assert long.num_too_short == 2 and "2 clips are shorter than one window" in str(long)


def test_clips_that_were_encoded_elsewhere_are_taken(
    folder: Path,  # noqa: F811
    pool: Counting,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run(TWO_SIZES, folder, pool).rename(folder / "elsewhere")
    monkeypatch.setenv("OMNIHUMAN_HOME", str(folder / "another_machine"))
    captions = pd.read_parquet(folder / "captions.parquet")
    captions.assign(caption=["a green shirt", ""]).to_parquet(folder / "captions.parquet")
    pool.jobs.clear()
    config = replace(TWO_SIZES, imported=str(folder / "elsewhere"), shard_clips=2)
    encoded = run(config, folder, pool)
    assert pool.jobs == ["c0"], "another caption is another clip"
    there, here = (folder / "elsewhere/shard-00001.safetensors", encoded / "shard-00000.safetensors")
    np.testing.assert_array_equal(load_clip(there, "c1").latents, load_clip(here, "c1").latents)
    with pytest.raises(UserError, match=r"encoded otherwise than params.yaml says \(num_frames\)"):
        run(replace(config, num_frames=5), folder, pool)
    with pytest.raises(UserError, match=r"c1 has other windows than encode.windows_per_clip"):
        run(replace(config, windows_per_clip=1), folder, pool)
    with pytest.raises(UserError, match=r"speech features of c1 are not what encode.store_speech"):
        run(replace(config, store_speech=False), folder, pool)
    with pytest.raises(UserError, match=r"encode.imported: .*holds none of the 2 clips"):
        for name in ("clips", "captions", "decisions"):
            table = pd.read_parquet(folder / f"{name}.parquet")
            renamed = table["clip_id"].str.replace("c", "d")
            table.assign(clip_id=renamed).to_parquet(folder / f"{name}.parquet")
        run(config, folder, pool)


def test_shards_cannot_go_where_the_step_replaces_them(folder: Path) -> None:  # noqa: F811
    with pytest.raises(UserError, match="which this step replaces"):
        run(replace(SMALL, shards_at=str(folder / "encoded/shards")), folder)


def slot_of(seen: Path | None) -> int:
    """The slot, as soon as there are two of them; ends its process where there is no seen."""
    if seen is None:
        raise SystemExit(3)
    (seen / str(worker_slot())).touch()
    assert wait_until(lambda: len(list(seen.iterdir())) == 2, 60)
    return worker_slot()


def test_workers_at_one_time_have_slots_of_their_own(tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir()
    after.mkdir()
    items = [before, before, None, after, after]  # who ends frees its slot
    outcomes = list(run_guarded(slot_of, items, Limits(60.0, 500, workers=2), "slots"))
    assert [outcome.status for outcome in outcomes] == ["ok", "ok", "error", "ok", "ok"]
    assert sorted(outcome.value for outcome in outcomes if outcome.value is not None) == [0, 0, 1, 1]


def fill(megabytes: int) -> int:
    return len(bytearray(megabytes * 2**20))


def test_private_memory_is_capped_where_a_driver_reserves_address_space() -> None:
    outcomes = list(run_guarded(fill, [50, 2000, 50], Limits(60.0, 500, workers=1, on_gpu=True), "memory"))
    assert [outcome.status for outcome in outcomes] == ["ok", "error", "ok"]
    assert "500 MB" in outcomes[1].error


def test_a_gpu_that_is_not_there_is_named(folder: Path) -> None:  # noqa: F811
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(UserError, match=r"compute\.accelerator is cuda"):
        plan_encoding(SMALL, inputs_of(folder), "cuda")
