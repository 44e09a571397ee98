"""What a stage costs: counted from real tokens, measured or absent."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.test_flops import choices, counted
from tests.tiny import CONFIG, WIDTHS, random_conditions, random_model, write_encoded

from omnihuman.batch import ModelInput, Pack, TrainingBatch
from omnihuman.config.schema.diffusion import Diffusion
from omnihuman.config.schema.stage import Stage, Training
from omnihuman.errors import UserError
from omnihuman.training import throughput
from omnihuman.training.fit import StageRun
from omnihuman.training.run import train_stage
from omnihuman.training.throughput import (
    PEAK_VARIABLE,
    PRICE_VARIABLE,
    Fetched,
    Meter,
    PackSize,
    TimedPacks,
    Window,
    pack_size,
    peak_flops,
    rates,
)

TRAINING = Training(
    global_batch_size=2, warmup_steps=2, checkpoint_every_steps=2, log_every_steps=2, validate_every_steps=0
)
RUN = StageRun("1_text_image", Stage(steps=5), TRAINING, CONFIG, Diffusion(), seed=3)


def nothing(parameter: str) -> bool:
    """Is trained."""
    return False


def part(reference: tuple[bool, bool], audio: tuple[bool, bool]) -> TrainingBatch:
    """Two samples of 3 latent frames of 2 x 3, with 4 and 6 tokens of text."""
    conditions = replace(random_conditions(), reference_on=torch.tensor(reference), audio_on=torch.tensor(audio))
    shape = (2, WIDTHS.latent_channels, 3, 2, 3)
    return TrainingBatch(torch.zeros(shape), torch.zeros(shape), torch.ones(2), conditions)


def test_tokens_are_those_that_are_there() -> None:
    pack = (part((True, False), (True, True)), part((False, False), (False, False)))
    size = pack_size(pack, CONFIG, WIDTHS, nothing)
    assert size.samples == 4 and size.tokens == (4 + 3 + 3 + 3) * 6 + 2 * (4 + 6)


@pytest.mark.parametrize("reference", [(True, True), (True, False), (False, False)])
@pytest.mark.parametrize("audio", [(True, True), (False, True), (False, False)])
def test_operations_are_what_pytorch_counts_of_the_conditions_that_are_on(
    reference: tuple[bool, bool], audio: tuple[bool, bool]
) -> None:
    model, given = random_model(), part(reference, audio)
    conditions = given.conditions
    total = counted(lambda: model.forward_packed([ModelInput(given.latents, given.sigma, conditions)]))
    drawn = (
        (conditions.keypoints, conditions.pose_on),
        (conditions.reference_keypoints[:, None], torch.tensor(reference)),
    )
    pose = sum(counted(lambda k=k, on=on: model.pose_condition(k, on, 2, 3)) for k, on in drawn)
    levels = choices(CONFIG, [(3 + on) * 6 for on in reference], [4, 6], any_clean=any(reference))
    channels = 2 * WIDTHS.latent_channels + 1 + 2 * CONFIG.pose_channels
    dropped = reference.count(False) * 2 * 6 * channels * CONFIG.width  # embedded, and no token of the sequence
    assert total - pose - levels - dropped == pack_size((given,), CONFIG, WIDTHS, nothing).flops


def test_a_stage_with_a_frozen_base_asks_for_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    size = throughput.pack_size
    monkeypatch.setattr(throughput, "pack_size", lambda *given: seen.append((made := size(*given)).flops) or made)
    for place, frozen in (("whole", ()), ("part", ("base",))):
        monkeypatch.setenv("OMNIHUMAN_HOME", str(tmp_path / place))
        trained(tmp_path / place, replace(RUN, stage=Stage(steps=2, frozen=frozen)))
    half = len(seen) // 2
    assert half >= 2
    assert all(1 / 3 < less / all_of_it < 0.8 for all_of_it, less in zip(seen[:half], seen[half:], strict=True))


def test_a_model_whose_operations_nobody_counted_has_no_such_figures() -> None:
    joint = replace(CONFIG, audio_fusion="joint_attention")
    window = Window()
    window.add(Fetched(pack_size((part((True, True), (True, True)),), joint, WIDTHS, nothing), 1.0), 3.0)
    figures = rates([window], 1e12)
    assert figures.keys() == {
        f"throughput/{name}" for name in ("tokens_per_second", "samples_per_second", "data_wait_share")
    }


def test_rates_are_of_all_ranks_together() -> None:
    window = Window()
    window.add(Fetched(PackSize(4, 1000, 3 * 10**12), 0.5), 1.5)
    window.add(Fetched(PackSize(4, 3000, 5 * 10**12), 0.0), 2.0)
    assert window == Window(8, 4000, 8 * 10**12, 0.5, 4.0)
    faster = Window(8, 4000, 8 * 10**12, 0.5, 1.0)
    figures = rates([window, faster], 20e12)
    assert figures["throughput/tokens_per_second"] == 2000 and figures["throughput/samples_per_second"] == 4
    assert figures["throughput/data_wait_share"] == 0.2
    assert figures["throughput/tflops_per_second"] == 4 and figures["throughput/mfu"] == pytest.approx(0.1)
    assert "throughput/mfu" not in rates([window, faster], None)


def test_a_peak_is_published_or_given_or_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PEAK_VARIABLE, raising=False)
    for device, tflops in (
        ("NVIDIA H100 80GB HBM3", 989), ("NVIDIA H100 PCIe", 756), ("NVIDIA H200", 989),
        ("NVIDIA A100-SXM4-80GB", 312), ("NVIDIA L40S", 362), ("NVIDIA L4", 121),
    ):  # fmt: skip
        assert peak_flops(device, "bf16-mixed") == tflops * 1e12
    assert peak_flops("NVIDIA GH200 480GB", "bf16-mixed") is peak_flops("", "bf16-mixed") is None
    assert peak_flops("NVIDIA H100 80GB HBM3", "32-true") is None
    monkeypatch.setenv(PEAK_VARIABLE, "2.5")
    assert peak_flops("", "32-true") == 2.5e12
    for wrong in ("many", "0", "-1", "inf", "nan"):
        monkeypatch.setenv(PEAK_VARIABLE, wrong)
        with pytest.raises(UserError, match=f"{PEAK_VARIABLE} is '{wrong}'"):
            peak_flops("", "32-true")


def test_hours_of_a_killed_process_were_paid_for_as_well(tmp_path: Path) -> None:
    file = tmp_path / "hours.json"
    Meter(file, num_gpus=8, price=2.0).add(1800)
    again = Meter(file, num_gpus=4, price=2.0)
    again.add(900)
    assert again.figures() == {"cost/hours": 0.75, "cost/gpu_hours": 5.0, "cost/price": 10.0}
    assert Meter(file, num_gpus=4, price=None).figures().keys() == {"cost/hours", "cost/gpu_hours"}
    without = Meter(tmp_path / "other.json", num_gpus=0, price=2.0)
    without.add(3600)
    assert without.figures() == {"cost/hours": 1.0}


def slow_packs(count: int) -> Iterator[Pack]:
    for _ in range(count):
        time.sleep(0.05)
        yield (part((True, True), (True, True)),)


def test_waiting_for_data_is_measured_where_it_happens() -> None:
    packs = TimedPacks(slow_packs(3), CONFIG, WIDTHS, nothing)
    for number, _ in enumerate(packs, start=1):
        time.sleep(1.5)
        assert len(packs.fetched) == number, "a loop that fetches ahead still finds each pack's figures"
    assert all(0.05 <= fetched.waited_seconds < 1.5 for fetched in packs.fetched)


def trained(folder: Path, run: StageRun = RUN) -> dict[int, dict[str, float]]:
    write_encoded(folder / "encoded", [(True, True), (False, False)])
    reported: dict[int, dict[str, float]] = {}
    train_stage(run, folder / "encoded", folder / "models", report=lambda s, m: reported.setdefault(s, {}).update(m))
    return reported


def test_a_stage_reports_every_so_many_steps_and_after_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMNIHUMAN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv(PEAK_VARIABLE, "0.001")
    monkeypatch.setenv(PRICE_VARIABLE, "2.5")
    start = time.monotonic()
    reported = trained(tmp_path)
    wall = time.monotonic() - start
    with_rates = [step for step, metrics in reported.items() if "throughput/tokens_per_second" in metrics]
    assert with_rates == [2, 4, 5]
    last = reported[5]
    ratio = last["throughput/tokens_per_second"] / last["throughput/samples_per_second"]
    assert 48 + 1 <= ratio <= 64 + 6, "3 frames of 16 tokens, perhaps a reference, 1 to 6 of text"
    assert last["throughput/samples_per_second"] * wall > 2
    assert 0 < last["throughput/data_wait_share"] < 1
    assert last["throughput/mfu"] == pytest.approx(last["throughput/tflops_per_second"] / 0.001)
    assert 0.1 < last["memory/process_peak_gib"] < 100
    assert 0 < reported[2]["cost/hours"] < last["cost/hours"] < wall / 3600
    assert "cost/price" not in last and "cost/gpu_hours" not in last, "no GPU has been used"


def test_a_price_that_is_none_is_named_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNIHUMAN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv(PRICE_VARIABLE, "cheap")
    with pytest.raises(UserError, match=f"{PRICE_VARIABLE} is 'cheap'"):
        trained(tmp_path)
