"""Path, noise levels, solver and guidance against closed forms."""

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.tiny import WIDTHS, random_conditions, random_model

from omnihuman.batch import Conditions
from omnihuman.config.compose import compose
from omnihuman.config.render_checks import check_sampling
from omnihuman.config.schema.diffusion import Diffusion
from omnihuman.config.schema.evaluate import Sampling
from omnihuman.diffusion.guidance import Velocity, branches, guided_velocity, scales
from omnihuman.diffusion.loss import flow_matching_loss
from omnihuman.diffusion.path import noisy_latents, velocity
from omnihuman.diffusion.solver import SOLVERS
from omnihuman.diffusion.timesteps import sampling_schedule, shift_by_tokens, shifted, sigma_from_normal

CONF = Path(__file__).parents[1] / "conf"


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
    is_given = torch.tensor([[True, False, False]])
    assert flow_matching_loss(predicted, target, is_given).tolist() == [1.0]


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
    """Velocity 1 for text plus 10 for audio, and how many samples each forward had."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, noisy: torch.Tensor, sigma: torch.Tensor, asked: Conditions) -> torch.Tensor:
        self.batches.append(len(noisy))
        value = (asked.text.sum(dim=(1, 2)) == 40.0).float() + 10.0 * asked.audio_on.float()
        return value.reshape(-1, 1, 1, 1, 1).expand_as(noisy)


SHAPE_OF_ONE = (1, 1, 1, 1)
GUIDANCE_CASES = [(1.0, 1.0, 1), (1.0, 3.0, 2), (2.0, 1.0, 3), (2.0, 3.0, 3), (2.0, 2.0, 2)]


def guided(model: Velocity, asked_for: Conditions, text: float, audio: float, batched: bool = True) -> torch.Tensor:
    """Of noisy latents of zeros."""
    batch = len(asked_for.text)
    asked = branches(asked_for, torch.zeros(1, asked_for.text.shape[2]), text, audio)
    return guided_velocity(model, torch.zeros(batch, *SHAPE_OF_ONE), torch.zeros(batch), asked, batched)


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize(("text", "audio", "num_branches"), GUIDANCE_CASES)
def test_guidance_formula_and_skipped_branches(text: float, audio: float, num_branches: int, batched: bool):
    model = Counting()
    out = guided(model, conditions(2), text, audio, batched)
    expected = 0.0 + text * 1.0 + audio * 10.0  # v(none) = 0, v(text) = 1, v(text, audio) = 11
    torch.testing.assert_close(out.flatten(), torch.full((2,), expected))
    assert model.batches == ([2 * num_branches] if batched else [2] * num_branches)


def test_guidance_without_sound_guides_text_only():
    model = Counting()
    silent = replace(conditions(), audio_on=torch.tensor([False]))
    assert guided(model, silent, 3.0, 9.0).item() == 3.0
    mixed = replace(conditions(2), audio_on=torch.tensor([True, False]))
    assert guided(model, mixed, 3.0, 9.0).flatten().tolist() == [93.0, 3.0], "each sample of a batch by its own sound"


@given(text=st.floats(0, 20), audio=st.floats(0, 20), sounds=st.booleans())
def test_weights_of_branches_add_up_to_one(text: float, audio: float, sounds: bool):
    asked = branches(replace(conditions(), audio_on=torch.tensor([sounds])), torch.zeros(1, 2), text, audio)
    assert sum(weight for _, weight in asked) == pytest.approx(1.0)
    assert all(weight != 0.0 for _, weight in asked)
    for branch, _ in asked:
        for name in ("reference", "reference_on", "keypoints", "pose_on", "motion", "motion_on"):
            assert getattr(branch, name) is getattr(asked[0][0], name), "in every branch"


def test_branches_are_added_in_float32_also_where_the_network_computes_in_bfloat16() -> None:
    conditions, noisy = random_conditions(), torch.randn(2, WIDTHS.latent_channels, 3, 2, 3)
    asked, random = branches(conditions, torch.zeros(1, 64), 6.5, 3.5), torch.Generator().manual_seed(0)
    outputs = torch.randn(len(asked) * 2, *noisy.shape[1:], generator=random)
    with torch.autocast("cpu", torch.bfloat16):
        added = guided_velocity(lambda *_: outputs, noisy, torch.ones(2), asked, True)
    weights = torch.tensor([weight for _, weight in asked])
    torch.testing.assert_close(added, torch.einsum("rb...,r->b...", outputs.unflatten(0, (-1, 2)), weights))


def test_batched_and_sequential_guidance_of_the_network_are_equal() -> None:
    model, noisy = random_model(), torch.randn(2, WIDTHS.latent_channels, 3, 2, 3)
    seen: list[int] = []
    model.register_forward_hook(lambda _, given, __: seen.append(len(given[0])))
    asked = branches(random_conditions(), torch.full((2, WIDTHS.text_width), 0.1), 3.0, 5.0)
    sigma = torch.tensor([0.3, 0.9])
    with torch.no_grad():
        batched, sequential = (guided_velocity(model, noisy, sigma, asked, whether) for whether in (True, False))
        plain = guided_velocity(model, noisy, sigma, branches(random_conditions(), torch.zeros(1, 64), 1.0, 1.0))
        torch.testing.assert_close(plain, model(noisy, sigma, random_conditions()), rtol=0, atol=0)
    torch.testing.assert_close(batched, sequential, rtol=1e-4, atol=1e-4 * float(batched.std()))
    assert (batched - plain).abs().max() > 0.1 * plain.std()
    assert seen == [6, 2, 2, 2, 2, 2]


ANNEALED = st.builds(
    Sampling,
    num_steps=st.integers(1, 60),
    guidance_text=st.floats(1, 12),
    guidance_audio=st.floats(1, 12),
    guidance_end=st.floats(0, 12),
    guidance_annealing=st.sampled_from(["constant", "linear", "cosine"]),
    guidance_annealing_steps=st.integers(0, 60),
    guidance_text_steps=st.integers(0, 60),
)


@given(ANNEALED)
def test_annealing_never_increases(sampling: Sampling) -> None:
    rises = sampling.guidance_annealing != "constant" and sampling.guidance_end > min(
        sampling.guidance_text, sampling.guidance_audio
    )
    text_rises = (
        sampling.guidance_text_steps and sampling.guidance_annealing != "constant" and sampling.guidance_end < 1
    )
    said = "\n".join(check_sampling(sampling))
    assert ("guidance must not rise" in said) == rises and ("text has scale 1" in said) == text_rises
    if not said:
        steps = [scales(sampling, step) for step in range(sampling.num_steps)]
        assert steps[0] == (sampling.guidance_text, sampling.guidance_audio)
        for earlier, later in pairwise(steps):
            assert later[0] <= earlier[0] + 1e-12 and later[1] <= earlier[1] + 1e-12


def test_curves_of_annealing() -> None:
    linear = Sampling(num_steps=11, guidance_text=7.0, guidance_audio=7.0, guidance_end=2.0)
    assert [scales(linear, step) for step in (0, 5, 10)] == [(7.0, 7.0), (4.5, 4.5), (2.0, 2.0)]
    cosine = replace(linear, guidance_annealing="cosine")
    assert [scales(cosine, step)[1] for step in (0, 2, 5, 10)] == pytest.approx([7.0, 6.5225, 4.5, 2.0], abs=1e-4)
    assert scales(replace(linear, guidance_annealing="constant"), 10) == (7.0, 7.0)
    early = replace(linear, guidance_annealing_steps=6, guidance_text_steps=6)
    assert [scales(early, step) for step in (0, 4, 5, 6, 10)] == [(7, 7), (3, 3), (2, 2), (1, 2), (1, 2)]


@pytest.mark.parametrize("preset", sorted(path.stem for path in (CONF / "sampling").glob("*.yaml")))
def test_a_preset_asks_as_often_as_it_says(preset: str) -> None:
    sampling = compose("demo", [f"groups.sampling={preset}"], CONF).sampling
    head = (CONF / "sampling" / f"{preset}.yaml").read_text().splitlines()[1]
    words = {1: "one forward a step", 2: "two forwards a step", 3: "three forwards a step"}
    asked = len(branches(conditions(), torch.zeros(1, 2), *scales(sampling, 0)))
    assert words[asked] in head
