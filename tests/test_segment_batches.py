"""Segments that several threads ask for share batches, and every thread gets its own."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.batches import prepared, write_jobs
from tests.tiny import ENCODERS, random_conditions, random_model
from torch import Tensor

from omnihuman.batch import Conditions
from omnihuman.config.schema.evaluate import Sampling
from omnihuman.errors import UserError
from omnihuman.inference.generator import LoadedGenerator
from omnihuman.inference.segment_batches import SegmentBatches, SharingGenerator
from omnihuman.media.video import read_frames
from omnihuman.registry.versions import ModelVersion
from omnihuman.rendering.ledger import Ledger
from omnihuman.rendering.submit import enter
from omnihuman.rendering.worker import PARTIAL, Policy, work

pytest_plugins = ["tests.batch_fixtures"]
Keys = Sequence[tuple[int | str, ...]]
ALONE = threading.Barrier(1)
NOTHING = Conditions(**{each.name: torch.zeros(1) for each in fields(Conditions)})


class Model:
    """Says of each segment who asked for it, and takes its time; batches larger than `largest` do not fit."""

    def __init__(self, largest: int = 9) -> None:
        self.batches: list[list[tuple[int | str, ...]]] = []
        self.largest, self._works = largest, threading.Lock()

    def make(self, conditions: Conditions, num_latents: int, keys: Keys) -> Tensor:
        assert self._works.acquire(blocking=False), "one batch at a time"
        try:
            time.sleep(0.1)
            self.batches.append(list(keys))
            if ("wrong",) in keys:
                raise ValueError("this cannot be made")
            if len(keys) > self.largest:
                raise MemoryError
            return torch.tensor([[float(key[0]), num_latents] for key in keys])
        finally:
            self._works.release()


def ask(
    batches: SegmentBatches, model: Model, thread: int, count: int, kind: str = "all", start: threading.Barrier = ALONE
) -> list[float]:
    """One thread's segments, one after another, from the moment when all threads are there."""
    with batches.member():
        start.wait(60)
        asked = [batches.segment(kind, model.make, NOTHING, 3, [(10 * thread + number,)]) for number in range(count)]
    assert all(part.shape == (1, 2) and part[0, 1] == 3 for part in asked)
    return [float(part[0, 0]) for part in asked]


def test_each_thread_gets_its_own_and_batches_are_shared() -> None:
    batches, model, start = SegmentBatches(), Model(), threading.Barrier(4)
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(lambda thread: ask(batches, model, thread, 5 - thread, start=start), range(4)))
    assert got == [[10.0 * thread + number for number in range(5 - thread)] for thread in range(4)]
    asked = [key for batch in model.batches for key in batch]
    assert len(asked) == len(set(asked)) == 14
    assert len(model.batches) < 14, "who asks while a batch is made goes together with others"


def test_other_kinds_never_share() -> None:
    batches, model = SegmentBatches(), Model()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda thread: ask(batches, model, thread, 3, str(thread % 2)), range(4)))
    assert all(len({int(key[0]) // 10 % 2 for key in batch}) == 1 for batch in model.batches)


def test_what_does_not_fit_together_is_made_one_after_another() -> None:
    batches, model, start = SegmentBatches(), Model(largest=1), threading.Barrier(3)
    with ThreadPoolExecutor(3) as pool:
        got = list(pool.map(lambda thread: ask(batches, model, thread, 3, start=start), range(3)))
    assert got == [[10.0 * thread + number for number in range(3)] for thread in range(3)]
    assert max(map(len, model.batches)) > 1


def test_what_cannot_be_made_costs_its_neighbours_nothing() -> None:
    batches, model, start = SegmentBatches(), Model(), threading.Barrier(4)

    def wrong() -> str:
        with batches.member():
            start.wait(60)
            for _ in range(3):
                with pytest.raises(ValueError, match="this cannot be made"):
                    batches.segment("all", model.make, NOTHING, 3, [("wrong",)])
        return "told"

    with ThreadPoolExecutor(4) as pool:
        others = [pool.submit(ask, batches, model, thread, 3, start=start) for thread in range(3)]
        assert pool.submit(wrong).result(60) == "told"
        got = [other.result(60) for other in others]
    assert got == [[10.0 * thread + number for number in range(3)] for thread in range(3)]
    assert any(("wrong",) in batch and len(batch) > 1 for batch in model.batches)


def test_a_stop_reaches_all_who_had_a_part() -> None:
    batches, start, asked = SegmentBatches(), threading.Barrier(3), []

    def make(conditions: Conditions, num_latents: int, keys: Keys) -> Tensor:
        time.sleep(0.2)
        asked.append(len(keys))
        raise KeyboardInterrupt

    def one() -> str:
        with batches.member():
            start.wait(60)
            with pytest.raises(KeyboardInterrupt):
                batches.segment("all", make, NOTHING, 3, [(0,)])
        return "stopped"

    with ThreadPoolExecutor(3) as pool:
        assert [thread.result(60) for thread in [pool.submit(one) for _ in range(3)]] == ["stopped"] * 3
    assert sum(asked) == 3, "each once: what is stopped is not tried again"


def test_the_networks_segments_are_those_that_it_makes_alone() -> None:
    sampling = Sampling(num_steps=2, guidance_audio=2.0)
    alone = LoadedGenerator(random_model().eval(), ENCODERS, sampling, ("audio",), "")
    shared = SharingGenerator.around(alone)
    conditions = [random_conditions(1) for _ in range(3)]
    conditions = [replace(one, motion_on=torch.zeros_like(one.motion_on)) for one in conditions]
    num_latents = 3

    def make(number: int) -> list[Tensor]:
        with shared.batches.member():
            return [shared.segment(conditions[number], num_latents, [(number, again)]) for again in range(2)]

    with ThreadPoolExecutor(3) as pool:
        made = list(pool.map(make, range(3)))
    for number, parts in enumerate(made):
        for again, part in enumerate(parts):
            wanted = alone.segment(conditions[number], num_latents, [(number, again)])
            torch.testing.assert_close(part, wanted, atol=2e-4, rtol=1e-3)


def pixels(video: Path) -> np.ndarray:
    return read_frames(video, fps=25.0, short_side_pixels=64).pixels.astype(int)


def test_a_batch_of_jobs_made_together_shows_what_single_ones_show(
    inputs: Path, version: ModelVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    jobs = [{"image": f"{'ab'[seed % 2]}.png", "seed": seed, "output": f"{seed}.mp4"} for seed in range(5)]
    path = write_jobs(inputs, *jobs, {"image": "bad.png", "output": "bad.mp4"})
    (inputs / "bad.png").write_text("no picture")
    for folder, together in ((tmp_path / "one", 1), (tmp_path / "many", 3)):
        monkeypatch.setenv("OMNIHUMAN_HOME", str(folder / "home"))
        enter(prepared(path, folder, version))
        work(folder, version.folder, Policy(), lambda: None, together)
        assert sorted(item.state for item in Ledger(folder).items()) == ["dead", *["done"] * 5]
        assert not list((folder / PARTIAL).iterdir())
    for job in jobs:
        one, many = (pixels(tmp_path / folder / str(job["output"])) for folder in ("one", "many"))
        assert one.shape == many.shape and abs(one - many).mean() < 1.0


def test_models_that_leave_the_device_serve_one_job_at_a_time(
    inputs: Path, version: ModelVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMNIHUMAN_RENDER_OFFLOAD", "1")
    enter(prepared(write_jobs(inputs, {"image": "a.png"}), tmp_path / "videos", version))
    with pytest.raises(UserError, match="--together 1"):
        work(tmp_path / "videos", version.folder, Policy(), lambda: None, 2)
