"""The plan of a stage: memory against real tensors and real shards, speed as measured or unknown."""

import json
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from tests.rank_project import Ranks, write_project
from tests.tiny import CONFIG, ENCODERS, WIDTHS, random_conditions, random_model, write_encoded

from omnihuman.batch import TrainingBatch
from omnihuman.config.schema.compute import Compute
from omnihuman.config.schema.diffusion import Diffusion
from omnihuman.config.schema.stage import Stage, StageData, Training
from omnihuman.errors import UserError
from omnihuman.training.device import is_processor, noted_device
from omnihuman.training.fit import StageRun
from omnihuman.training.launch.placement import Placement
from omnihuman.training.measured import Recorder, Speed, device_name, find_speed, work_of
from omnihuman.training.module import sample_losses
from omnihuman.training.optimizer import make_optimizer
from omnihuman.training.plan import Parameters, count_parameters, memory_parts, plan, tokens_per_sample
from omnihuman.training.run import train_stage

RUN = StageRun("1_text_image", Stage(steps=3600), Training(global_batch_size=4), CONFIG, Diffusion(), 7)
ZERO2 = Compute("cpu", "zero2", processes_per_node=2)
TWO = Placement(processes=2)
TOKENS = (3 + 1) * 4 * 4 + ENCODERS.max_text_tokens
"""Of the clips of `tiny`: three latents of 4 x 4, a reference, the longest text."""


def num_bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_memory_of_one_process_is_that_of_its_tensors(optimizer: str) -> None:
    model, training = random_model(), Training(optimizer=optimizer, ema_decay=0.99)
    conditions = random_conditions()
    latents = torch.randn(2, WIDTHS.latent_channels, 3, 2, 3)
    batch = TrainingBatch(latents, torch.randn_like(latents), torch.rand(2), conditions)
    step = make_optimizer(model, training, 1e-3)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    sample_losses(model, (batch,), Diffusion()).mean().backward()
    step.step()
    parts = getattr(step, "parts", (step,))
    state = [tensor for part in parts for of in part.state.values() for tensor in of.values() if tensor.dim()]
    parameters = list(model.parameters())
    count = count_parameters(replace(RUN, training=training), ENCODERS)
    planned = {part.name: part.num_bytes for part in memory_parts(count, training, Compute(), 1)}
    assert planned == {
        "weights": num_bytes(parameters),
        "gradients": num_bytes(parameter.grad for parameter in parameters if parameter.grad is not None),
        "optimizer": num_bytes(state),
        "average": num_bytes(parameters),
    }


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["zero2", "zero3"])
def test_memory_of_a_ranks_optimizer_is_that_of_its_shard(strategy: str, tmp_path: Path) -> None:
    folder = write_project(
        tmp_path, compute__strategy=strategy, compute__accelerator="cpu", stage__steps=2, training__ema_decay=0.9
    )
    Ranks(folder, 2, "two").end_with(0)
    shards = list((folder / "two").rglob("*optim_states.pt"))
    count = count_parameters(RUN, ENCODERS)
    (planned,) = (p for p in memory_parts(count, Training(), Compute("cpu", strategy), 2) if p.name == "optimizer")
    assert len(shards) % 2 == 0 and shards
    for shard in shards:
        assert planned.num_bytes == pytest.approx(shard.stat().st_size, rel=0.1)


def test_zero_divides_and_offloads_what_it_says() -> None:
    count = Parameters(2_000_000_000, 2_000_000_000, 0)
    training = Training(precision="bf16-mixed", ema_decay=0.999)

    def gigabytes(strategy: str, offload: str = "none", ranks: int = 8) -> dict[str, tuple[float, bool]]:
        parts = memory_parts(count, training, Compute("cuda", strategy, offload), ranks)
        return {part.name: (part.num_bytes / 1e9, part.offloaded) for part in parts}

    assert gigabytes("zero2") == {
        "weights": (4.0, False), "gradients": (0.5, False), "optimizer": (3.0, False), "average": (1.0, False),
    }  # fmt: skip
    assert gigabytes("zero3")["weights"] == (0.5, False)
    assert gigabytes("zero2", "optimizer", 1)["optimizer"] == (24.0, True)
    assert [off for _, off in gigabytes("zero3", "all").values()] == [True, True, True, True]
    assert gigabytes("zero2", "optimizer")["weights"] == (4.0, False)


def test_what_is_frozen_has_neither_gradient_nor_optimizer() -> None:
    whole = count_parameters(RUN, ENCODERS)
    part = count_parameters(replace(RUN, stage=replace(RUN.stage, frozen=("base",))), ENCODERS)
    assert part.total == whole.total == whole.trainable and 0 < part.trainable < whole.trainable
    before, after = (memory_parts(count, Training(), Compute(), 1) for count in (whole, part))
    assert before[0] == after[0] and all(
        less.num_bytes < more.num_bytes for less, more in zip(after[1:], before[1:], strict=True)
    )


def test_tokens_are_counted_from_what_is_encoded(tmp_path: Path) -> None:
    write_encoded(tmp_path / "encoded", [(True, True)] * 3)
    assert tokens_per_sample(RUN, tmp_path / "encoded") == pytest.approx(TOKENS)
    pictures = replace(RUN, stage=replace(RUN.stage, data=StageData(pictures_share=1.0)))
    assert tokens_per_sample(pictures, tmp_path / "encoded") == 2 * 4 * 4 + ENCODERS.max_text_tokens
    write_encoded(tmp_path / "other", [(True, True)], split="test")
    with pytest.raises(UserError, match="no clip of the training split"):
        tokens_per_sample(RUN, tmp_path / "other")


def rows(text: str) -> dict[str, str]:
    """First word of each row's value by its name."""
    lines = [line.strip().split("  ") for line in text.splitlines()[1:]]
    return {name: next(filter(None, rest)).strip() for name, *rest in lines}


def test_speed_is_unknown_until_it_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNIHUMAN_HOME", str(tmp_path))
    write_encoded(tmp_path / "encoded", [(True, True)] * 3)
    price = {"OMNIHUMAN_GPU_HOUR_PRICE": "2.5", "OMNIHUMAN_DEVICE": "a device"}

    def planned(run: StageRun = RUN, placed: Placement = TWO) -> dict[str, str]:
        return rows(plan(run, ZERO2, placed, tmp_path / "encoded", price))

    before = planned()
    assert [before[name] for name in ("tokens a second", "hours", "cost", "GiB a rank, at most")] == ["unknown"] * 4
    assert before["steps"] == "3,600" and before["tokens a step"] == f"{4 * TOKENS:,.0f}"

    told: list[tuple[int, dict[str, float]]] = []
    recorder = Recorder(lambda step, metrics: told.append((step, metrics)))
    for step, samples in enumerate((0.1, 2.0, 4.0, 9.0), start=1):  # the first with its warm-up
        speeds = {"throughput/tokens_per_second": 50 * samples, "throughput/samples_per_second": samples}
        recorder.report(step, {"loss": 1.0, "memory/gpu_peak_gib": 3.5, **speeds})
    recorder.save(work_of(RUN, ZERO2, TWO, "a device"), TOKENS)
    assert [step for step, _ in told] == [1, 2, 3, 4], "every metric was handed on"

    after = planned()
    assert after["tokens a second"] == "200" and after["GiB a rank, at most"] == "3.5"
    assert after["hours"] == "1" and after["cost"] == "5.00"
    for other in (
        planned(replace(RUN, training=Training(global_batch_size=8))),
        planned(replace(RUN, model=replace(CONFIG, num_single_blocks=2))),
        planned(placed=Placement(processes=4)),
        planned(replace(RUN, name="2_audio")),
        planned(replace(RUN, stage=replace(RUN.stage, frozen=("text",)))),
    ):
        assert other["tokens a second"] == "unknown"


def test_other_lengths_and_other_devices_are_other_work(tmp_path: Path) -> None:
    file = tmp_path / "throughput.jsonl"
    work = work_of(RUN, ZERO2, TWO, "a device")
    for tokens in (100.0, 200.0):
        recorder = Recorder(lambda *_: None)
        for step in (1, 2):
            speeds = {"throughput/tokens_per_second": 10 * tokens, "throughput/samples_per_second": 10.0}
            recorder.report(step, speeds)
        recorder.save(work, tokens, file)
        recorder.save(replace(work, device=""), tokens, file)  # nobody knows on what
    assert len(file.read_text().splitlines()) == 2
    found = find_speed(work, 105.0, "cpu", (file,))
    assert found and found.device == "a device"
    assert found.speed.tokens_per_second == 1000.0 and found.speed.peak_gib is None
    assert find_speed(work, 150.0, "cpu", (file,)) is None
    assert find_speed(replace(work, device="another"), 100.0, "cpu", (file,)) is None


def speed(tokens_per_second: float) -> Speed:
    return Speed(tokens_per_second, tokens_per_second / TOKENS, TOKENS, 3.5, "2026-01-01")


def write_lines(file: Path, *measured: tuple[str, float]) -> None:
    """Measurements of RUN under SLURM, by device."""
    lines = []
    for device, tokens_per_second in measured:
        work = work_of(RUN, replace(ZERO2, accelerator="cuda"), SLURM, device)
        lines.append(json.dumps({"work": asdict(work), "speed": asdict(speed(tokens_per_second))}))
    file.write_text("\n".join(lines) + "\n")


SLURM = Placement("slurm", processes=2)


def test_a_plan_away_from_the_device_takes_the_newest_line_and_says_whose_it_is(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("OMNIHUMAN_HOME", str(tmp_path))
    write_encoded(tmp_path / "encoded", [(True, True)] * 3)
    write_lines(tmp_path / "throughput.jsonl", ("A100", 100.0), ("H100", 300.0), ("EPYC, 2 cores", 2.0))
    compute = replace(ZERO2, accelerator="cuda")

    def planned(**environment: str) -> str:
        return plan(RUN, compute, SLURM, tmp_path / "encoded", environment)

    away = planned()
    assert rows(away)["tokens a second"] == "300"
    assert "measured 2026-01-01 on H100, the last device of equal work" in away
    assert "on a device unknown here: OMNIHUMAN_DEVICE names it" in away
    assert rows(planned(OMNIHUMAN_DEVICE="A100"))["tokens a second"] == "100"
    assert rows(planned(OMNIHUMAN_DEVICE="B200"))["tokens a second"] == "unknown"
    compute = replace(ZERO2, accelerator="cpu")
    assert rows(planned())["tokens a second"] == "2", "a processor's"


@pytest.mark.parametrize(
    "damage", ['{"work": {"st', "[]", "3", '{"speed": {}, "work": {}}', '{"speed": 1, "work": 2}', "\xff"]
)
def test_a_damaged_line_is_left_out_and_named(damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "throughput.jsonl"
    write_lines(file, ("A100", 100.0), ("A100", 200.0))
    first, second = file.read_text().splitlines()
    file.write_text("\n".join([first, damage, second]) + "\n", encoding="latin-1")
    found = find_speed(work_of(RUN, ZERO2, SLURM, "A100"), TOKENS, "cuda", (file,))
    assert found and found.speed.tokens_per_second == 200.0
    (said,) = caplog.messages
    assert f"{file}, line 2 is no measurement and left out" in said


def test_a_stage_notes_what_it_ran_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNIHUMAN_DEVICE", "what a plan elsewhere is to assume")
    write_encoded(tmp_path / "encoded", [(True, True)])
    run = replace(RUN, stage=Stage(steps=2), training=Training(global_batch_size=2, validate_every_steps=0))
    (tmp_path / "work").mkdir()
    assert noted_device(tmp_path / "work") == ""
    train_stage(run, tmp_path / "encoded", tmp_path / "models", tmp_path / "work")
    here = device_name(Compute("cpu"), Placement(), {})
    assert noted_device(tmp_path / "work") == here and is_processor(here)


def test_nothing_is_kept_of_a_stage_that_was_too_short_to_measure(tmp_path: Path) -> None:
    recorder = Recorder(lambda *_: None)
    recorder.report(1, {"throughput/tokens_per_second": 10.0, "throughput/samples_per_second": 1.0})
    recorder.save(work_of(RUN, ZERO2, TWO, "a device"), 100.0, tmp_path / "table")
    assert not (tmp_path / "table").exists()


@pytest.mark.parametrize("price", ["much", "-1", "0", "inf"])
def test_a_price_that_is_none_is_refused(price: str, tmp_path: Path) -> None:
    write_encoded(tmp_path / "encoded", [(True, True)])
    with pytest.raises(UserError, match="OMNIHUMAN_GPU_HOUR_PRICE"):
        plan(RUN, ZERO2, TWO, tmp_path / "encoded", {"OMNIHUMAN_GPU_HOUR_PRICE": price})
