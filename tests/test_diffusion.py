"""Path, noise levels, solver and guidance against closed forms."""

from dataclasses import replace

import pytest
import torch

from omnihuman.batch import Conditions
from omnihuman.config.schema.diffusion import Diffusion
from omnihuman.diffusion.guidance import annealed, guided_velocity
from omnihuman.diffusion.loss import flow_matching_loss
from omnihuman.diffusion.path import noisy_latents, velocity
from omnihuman.diffusion.solver import euler
from omnihuman.diffusion.timesteps import sampling_schedule, shifted, sigma_from_normal


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


def test_euler_is_exact_on_straight_paths_and_first_order_on_curved_ones():
    data, noise = torch.tensor([[2.0]], dtype=torch.float64), torch.tensor([[-1.0]], dtype=torch.float64)
    straight = euler(lambda x, sigma, step: noise - data, noise, sampling_schedule(3, 1.0))
    torch.testing.assert_close(straight, data)
    # dx / dsigma = x has x(0) = x(1) / e.
    errors = [
        float(euler(lambda x, s, step: x, torch.ones(1, 1).double(), sampling_schedule(n, 1.0)) - torch.e**-1)
        for n in (50, 100)
    ]
    assert errors[0] / errors[1] == pytest.approx(2.0, rel=0.03)


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
