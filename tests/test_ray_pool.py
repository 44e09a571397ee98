"""Ray gives what the local pool gives, and says so where it cannot."""

import os
import signal
import time
from collections.abc import Iterator
from functools import partial
from importlib import import_module
from pathlib import Path

import psutil
import pytest
from tests.counted_scoring import write_corpus
from tests.test_published_encode import inputs_of

from omnihuman.config.schema.encode import Encode
from omnihuman.config.schema.score import Score
from omnihuman.data.encoding_plan import plan_encoding
from omnihuman.data.manifest import CAPTIONS, DECISIONS, write_table
from omnihuman.data.precompute import encode
from omnihuman.data.scoring import score
from omnihuman.errors import UserError
from omnihuman.media import ray_pool
from omnihuman.media.ray_pool import run_on_ray
from omnihuman.media.worker import Limits, RunGuarded, run_guarded

ray = pytest.importorskip("ray", reason="the optional package ray is not installed: pip install '.[ray]'")

pytestmark = [pytest.mark.slow, pytest.mark.long]


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """Two processors of this machine and no GPU, and no trace of them afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        patch.setenv("OMNIHUMAN_WORKERS", "2")
        # Ray's processes import this file as this one does.
        patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
        yield
        ray.shutdown()


def misbehaves(item: int) -> int:
    if item == 1:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            pass
    if item == 2:
        os.kill(os.getpid(), signal.SIGSEGV)
    if item == 3:
        raise UserError("a sentence")
    if item == 4:
        time.sleep(0.3)
    return item * item


def test_outcomes_are_those_of_the_local_pool_and_a_hanging_decoder_is_killed() -> None:
    limits = Limits(deadline_seconds=2.0, memory_megabytes=500, items_per_worker=3)
    items = list(range(9))
    outcomes = list(run_on_ray(misbehaves, items, limits, ""))
    assert outcomes == list(run_guarded(misbehaves, items, limits, ""))
    statuses = ["ok", "timeout", "error", "error", "ok", "ok", "ok", "ok", "ok"]
    assert [outcome.status for outcome in outcomes] == statuses
    assert list(run_on_ray(misbehaves, [], limits, "")) == []


def loses_its_process(marks: Path, item: int) -> int:
    """Ray's process is killed by item 0 the first time, and by item 3 always."""
    mark = marks / str(item)
    if item == 3 or (item == 0 and not mark.exists()):
        mark.touch()
        psutil.Process().parents()[1].kill()  # beyond the server that forks guarded workers
        time.sleep(60)
    return item


def test_an_item_whose_process_is_lost_again_and_again_is_an_error_and_costs_no_other(tmp_path: Path) -> None:
    outcomes = list(run_on_ray(partial(loses_its_process, tmp_path), range(4), Limits(100.0, 500), ""))
    assert [(outcome.index, outcome.status, outcome.value) for outcome in outcomes] == [
        (0, "ok", 0),
        (1, "ok", 1),
        (2, "ok", 2),
        (3, "error", None),
    ]
    assert "lost the process or the node 3 times" in outcomes[3].error


def test_a_node_with_other_code_refuses_and_does_not_even_read_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "only_here.py").write_text("def double(item):\n    return 2 * item\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(ray_pool, "code_key", lambda *_: "of another commit")
    with pytest.raises(UserError, match=r"has other code in \S+omnihuman than .* install the same commit"):
        list(run_on_ray(import_module("only_here").double, [1, 2], Limits(10.0, 500), ""))


def test_a_cluster_without_a_gpu_is_refused_where_one_is_asked_for() -> None:
    with pytest.raises(UserError, match="the Ray cluster has none"):
        list(run_on_ray(misbehaves, [0], Limits(10.0, 500, on_gpu=True), ""))


def test_tables_are_those_of_the_local_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_corpus(tmp_path, 5)
    (tmp_path / "v003.mp4").write_bytes(b"no video")

    def tables(name: str, run: RunGuarded) -> list[bytes]:
        monkeypatch.setenv("OMNIHUMAN_HOME", str(tmp_path / name))
        outputs = [tmp_path / f"{name}-{table}.parquet" for table in ("scores", "strips")]
        score(Score(short_side_pixels=64, clips_per_worker=3), tmp_path, tmp_path / "clips.parquet", *outputs, run)
        return [output.read_bytes() for output in outputs]

    assert tables("ray", run_on_ray) == tables("local", run_guarded)


def test_shards_are_those_of_the_local_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_corpus(tmp_path, 4)
    decisions = [
        dict.fromkeys(DECISIONS.names) | {"clip_id": f"c{i:03d}", "modality": modality, "eligible": modality == "text"}
        for i in range(4)
        for modality in ("text", "audio", "pose")
    ]
    write_table(decisions, DECISIONS, tmp_path / "decisions.parquet")
    captions = [dict.fromkeys(CAPTIONS.names) | {"clip_id": f"c{i:03d}", "caption": "noise"} for i in range(4)]
    write_table(captions, CAPTIONS, tmp_path / "captions.parquet")
    config = Encode(num_frames=9, windows_per_clip=2, resolutions=(4096,), shard_clips=3, deadline_seconds=60.0)

    def files(name: str, run: RunGuarded) -> dict[str, bytes]:
        monkeypatch.setenv("OMNIHUMAN_HOME", str(tmp_path / name))
        encode(plan_encoding(config, inputs_of(tmp_path)), tmp_path / f"{name} encoded", run)
        return {path.name: path.read_bytes() for path in (tmp_path / f"{name} encoded").iterdir()}

    local = files("local", run_guarded)
    assert len([name for name in local if name.startswith("shard-")]) == 2
    assert files("ray", run_on_ray) == local


def test_a_missing_cluster_is_an_error_for_people(monkeypatch: pytest.MonkeyPatch) -> None:
    ray.shutdown()
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(UserError, match=r"RAY_ADDRESS is 127\.0\.0\.1:1"):
        list(run_on_ray(misbehaves, [0], Limits(1.0, 100), ""))
