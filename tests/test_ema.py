"""The moving average: its warm-up, its pieces, and what frozen parameters do."""

import json
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from safetensors.torch import save_file
from tests.tiny import random_model

from omnihuman.errors import UserError
from omnihuman.training.averaged import average_in_place
from omnihuman.training.ema import WeightAverage, averaged_weights, fragments, warmed_up
from omnihuman.training.ranks import Ranks


class Steps(pl.Trainer):
    """A trainer whose steps the test counts."""

    global_step = 0


def test_the_decay_warms_up_to_its_value() -> None:
    decays = [warmed_up(0.999, step) for step in range(20_000)]
    assert decays[0] == 0.1 and decays == sorted(decays) and decays[-1] == 0.999


def test_the_average_of_one_process_equals_the_formula(tmp_path: Path) -> None:
    model = random_model()
    average = WeightAverage(model, 0.9, Ranks(), resume=None)
    trainer = Steps(logger=False, enable_checkpointing=False, accelerator="cpu")
    average.on_train_start(trainer, model)
    expected = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for step in range(1, 4):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        trainer.global_step = step
        for _ in range(2):  # a second micro-step of the same step changes nothing
            average.on_train_batch_end(trainer, model, None, None, 0)
        decay = warmed_up(0.9, step)
        for name, parameter in model.named_parameters():
            expected[name] = decay * expected[name] + (1 - decay) * parameter.detach()
    average.save(tmp_path)
    whole = averaged_weights(tmp_path, {name: tensor.shape for name, tensor in expected.items()})
    assert whole.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(whole[name], tensor, rtol=1e-5, atol=1e-6)

    resumed = WeightAverage(model, 0.9, Ranks(), resume=tmp_path)
    resumed.on_train_start(trainer, model)
    (tmp_path / "again").mkdir()
    resumed.save(tmp_path / "again")
    again = averaged_weights(tmp_path / "again", {name: tensor.shape for name, tensor in expected.items()})
    assert all(torch.equal(again[name], whole[name]) for name in whole)


def write_pieces(folder: Path, bounds: list[tuple[int, int]]) -> torch.Tensor:
    """A file for each rank's part of one parameter of 24 elements; returns the whole."""
    whole = torch.arange(24.0)
    for rank, (start, end) in enumerate(bounds):
        about = {"starts": {"weight": start}, "lengths": {"weight": 24}, "ranks": len(bounds)}
        metadata = {key: json.dumps(value) for key, value in about.items()}
        save_file({"weight": whole[start:end].clone()}, folder / f"ema-{rank:05d}.safetensors", metadata)
    return whole


def test_pieces_of_any_number_of_ranks_join(tmp_path: Path) -> None:
    whole = write_pieces(tmp_path, [(0, 5), (5, 17), (17, 24)])
    joined = averaged_weights(tmp_path, {"weight": torch.Size([4, 6])})
    assert torch.equal(joined["weight"], whole.reshape(4, 6))


@pytest.mark.parametrize(("bounds", "known"), [([(0, 5), (6, 24)], 5), ([(1, 24)], 0), ([(0, 12), (3, 20)], 20)])
def test_a_hole_between_pieces_is_named(bounds: list[tuple[int, int]], known: int, tmp_path: Path) -> None:
    write_pieces(tmp_path, bounds)
    with pytest.raises(UserError, match=f"the average of weight from element {known} on, of 24"):
        averaged_weights(tmp_path, {"weight": torch.Size([24])})


def test_a_missing_file_of_a_rank_is_named_at_a_resume_as_when_it_becomes_a_model(tmp_path: Path) -> None:
    model = random_model()
    trainer = Steps(logger=False, enable_checkpointing=False, accelerator="cpu")
    resumed = WeightAverage(model, 0.9, Ranks(), resume=tmp_path)
    with pytest.raises(UserError, match=r"ema-00000\.safetensors is missing, so the average cannot go on"):
        resumed.on_train_start(trainer, model)
    write_pieces(tmp_path, [(0, 12), (12, 24)])
    (tmp_path / "ema-00000.safetensors").unlink()
    with pytest.raises(UserError, match=r"ema-00000\.safetensors is missing, of 2 ranks' averages"):
        resumed.on_train_start(trainer, model)
    with pytest.raises(UserError, match=r"ema-00000\.safetensors is missing, of 2 ranks' averages"):
        averaged_weights(tmp_path, {"weight": torch.Size([24])})


def test_what_is_frozen_has_no_average() -> None:
    model = random_model()
    frozen = next(iter(dict(model.named_parameters())))
    model.get_parameter(frozen).requires_grad_(False)
    names = {fragment.name for fragment in fragments(model, 0)}
    assert frozen not in names and len(names) == len(list(model.parameters())) - 1


def test_what_is_frozen_stays_as_it_is_while_the_average_is_looked_at() -> None:
    model = random_model()
    names = list(dict(model.named_parameters()))
    model.get_parameter(names[0]).requires_grad_(False)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    average = WeightAverage(model, 0.9, Ranks(), resume=None)
    average.on_train_start(Steps(logger=False, enable_checkpointing=False, accelerator="cpu"), model)
    for piece in average.pieces:
        piece.values.add_(1.0)
    with average_in_place(average, Ranks(), model):
        assert torch.equal(model.get_parameter(names[0]), before[names[0]])
        assert all(torch.equal(model.get_parameter(name), before[name] + 1) for name in names[1:])
    assert all(torch.equal(model.get_parameter(name), before[name]) for name in names)
