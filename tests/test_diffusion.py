"""Path, noise levels, solver and guidance against closed forms."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from omnihuman.batch import Conditions
from omnihuman.config.schema.diffusion import Diffusion
from omnihuman.diffusion.guidance import annealed, guided_velocity
from omnihuman.diffusion.loss import flow_matching_loss
from omnihuman.diffusion.path import noisy_latents, velocity
from omnihuman.diffusion.solver import SOLVERS
from omnihuman.diffusion.timesteps import sampling_schedule, shift_by_tokens, shifted, sigma_from_normal


def test_sigma_one_is_noise_and_zero_is_data():
    data, noise = torch.randn(2, 3, generator=torch.Generator().manual_seed(0)), torch.ones(2, 3)
    torch.testing.assert_close(noisy_latents(data, noise, torch.tensor([0.0, 1.0])), torch.stack([data[0], noise[1]]))


def test_velocity_is_the_derivative_of_the_path():
    data, noise = torch.tensor([[1.0, 2.0]]), torch.tensor([[-1.0, 0.5]])
    step = noisy_latents(data, noise, torch.tensor([0.6])) - noisy_latents(data, noise, torch.tensor([0.5]))
    torch.testing.assert_close(step, 0.1 * velocity(data, noise))


def test_shift_keeps_the_ends_and_moves_towards_noise():
    sigma = torch.tensor([0.0, 0.5, 1.0])
    torch.testing.assert_close(shifted(sigma, 3.0), torch.tensor([0.0, 0.75, 1.0]))
    assert sigma_from_normal(torch.tensor(0.0), Diffusion(logit_normal_mean=0.0)) == 0.5


def gaussian_velocity(x: torch.Tensor, sigma: torch.Tensor, step: int) -> torch.Tensor:
    """E[eps - x0 | x] for data from a normal distribution with mean 1 and standard deviation 0.5."""
    level = sigma.unsqueeze(1)
    variance = (0.5 * (1 - level)) ** 2 + level**2
    return (level - 0.25 * (1 - level)) / variance * (x - (1 - level)) - 1.0


def solved(solver: str, num_steps: int, shift: float) -> float:
    """The largest error at sigma 0: the flow of normal data moves x to 1 + 0.5 x."""
    noise = torch.linspace(-2.0, 2.0, 9, dtype=torch.float64)[:, None]
    data = SOLVERS[solver](gaussian_velocity, noise, sampling_schedule(num_steps, shift))
    return float((data - (1 + 0.5 * noise)).abs().max())


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2), ("adams_bashforth", 2)])
@pytest.mark.parametrize("shift", [1.0, 0.5])
def test_the_order_of_a_solver_on_normal_data(solver: str, order: int, shift: float) -> None:
    errors = [solved(solver, num_steps, shift) for num_steps in (64, 128, 256)]
    for coarse, fine in pairwise(errors):
        assert coarse / fine == pytest.approx(2.0**order, rel=0.05), errors


@pytest.mark.parametrize(("solver", "evaluations"), [("euler", 8), ("heun", 15), ("adams_bashforth", 8)])
def test_solvers_are_exact_on_straight_paths_and_evaluate_above_zero_only(solver: str, evaluations: int) -> None:
    data, noise = torch.tensor([[2.0]], dtype=torch.float64), torch.tensor([[-1.0]], dtype=torch.float64)
    levels: list[tuple[float, int]] = []

    def velocity(x: torch.Tensor, sigma: torch.Tensor, step: int) -> torch.Tensor:
        levels.append((sigma.item(), step))
        return noise - data

    schedule = sampling_schedule(8, 3.0)
    torch.testing.assert_close(SOLVERS[solver](velocity, noise, schedule), data)
    assert len(levels) == evaluations and min(sigma for sigma, _ in levels) > 0
    assert [step for _, step in levels] == sorted(step for _, step in levels)
    assert {schedule[step].item() for _, step in levels} <= {sigma for sigma, _ in levels}


def test_the_shift_of_a_picture_grows_with_its_tokens_and_ends_where_it_was_fitted() -> None:
    assert [shift_by_tokens(number) for number in (256, 2176, 4096)] == pytest.approx(
        [math.exp(0.5), math.exp(0.825), math.exp(1.15)]
    )
    assert shift_by_tokens(36864) == shift_by_tokens(4096) > shift_by_tokens(3600) > shift_by_tokens(64) > 1


def test_given_frames_carry_no_loss():
    predicted, target = torch.zeros(1, 2, 3, 1, 1), torch.ones(1, 2, 3, 1, 1)
    predicted[:, :, 0] = 100.0
    given = torch.tensor([[True, False, False]])
    assert flow_matching_loss(predicted, target, given).tolist() == [1.0]


def conditions(batch: int = 1) -> Conditions:
    on = torch.ones(batch, dtype=torch.bool)
    return Conditions(
        text=torch.full((batch, 4, 2), 5.0), text_mask=torch.ones(batch, 4, dtype=torch.bool),
        reference=torch.zeros(batch, 1, 1, 1), reference_on=on,
        reference_keypoints=torch.zeros(batch, 17, 3), speech=torch.zeros(batch, 1, 8, 1),
        speech_mask=torch.ones(batch, 1, 8, dtype=torch.bool), audio_on=on, keypoints=torch.zeros(batch, 1, 17, 3),
        pose_on=on, motion=torch.zeros(batch, 1, 2, 1, 1), motion_on=~on,
    )  # fmt: skip


class Counting:
    """Velocity 1 for text plus 10 for audio, and how many samples were asked for."""

    samples = 0

    def __call__(self, noisy: torch.Tensor, sigma: torch.Tensor, given: Conditions) -> torch.Tensor:
        self.samples += len(noisy)
        value = (given.text.sum(dim=(1, 2)) == 40.0).float() + 10.0 * given.audio_on.float()
        return value.reshape(-1, 1, 1, 1, 1).expand_as(noisy)


GUIDANCE_CASES = [(1.0, 1.0, 1), (1.0, 3.0, 2), (2.0, 1.0, 3), (2.0, 3.0, 3), (2.0, 2.0, 2)]


@pytest.mark.parametrize(("text", "audio", "branches"), GUIDANCE_CASES)
def test_guidance_formula_and_skipped_branches(text: float, audio: float, branches: int):
    model = Counting()
    out = guided_velocity(
        model, torch.zeros(2, 1, 1, 1, 1), torch.zeros(2), conditions(2), torch.zeros(1, 2), text, audio
    )
    expected = 0.0 + text * 1.0 + audio * 10.0  # v(none) = 0, v(text) = 1, v(text, audio) = 11
    torch.testing.assert_close(out.flatten(), torch.full((2,), expected))
    assert model.samples == 2 * branches


def test_guidance_without_sound_guides_text_only():
    model = Counting()
    silent = replace(conditions(), audio_on=torch.tensor([False]))
    out = guided_velocity(model, torch.zeros(1, 1, 1, 1, 1), torch.zeros(1), silent, torch.zeros(1, 2), 3.0, 9.0)
    assert out.item() == 3.0


def test_annealing_never_increases():
    scales = [annealed(6.0, 1.0, step, 10) for step in range(10)]
    assert scales[0] == 6.0 and scales[-1] == 1.0
    assert scales == sorted(scales, reverse=True)
