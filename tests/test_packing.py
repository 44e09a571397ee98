"""Samples of any sizes in one sequence: the same as one by one, in any order."""

import copy
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tiny import CONFIG, WIDTHS, random_conditions, random_model
from torch.nn import functional

from omnihuman.batch import ModelInput
from omnihuman.packed import Joint, Runs, attend

CPU = torch.device("cpu")
FLAGS = ("reference_on", "audio_on", "pose_on", "motion_on")


def sample(num_latents: int, height: int, width: int, flags: tuple[bool, ...], seed: int) -> ModelInput:
    conditions = random_conditions(1, num_latents, height, width, seed)
    flags = (*flags[:-1], flags[-1] and num_latents > 1)  # a picture has no room for motion frames
    conditions = replace(conditions, **{name: torch.tensor([on]) for name, on in zip(FLAGS, flags, strict=True)})
    draw = torch.Generator().manual_seed(seed)
    noisy = torch.randn(1, WIDTHS.latent_channels, num_latents, height, width, generator=draw)
    return ModelInput(noisy, torch.rand(1, generator=draw), conditions)


SIZES = st.integers(1, 3).map(lambda n: 2 * n)
SAMPLES = st.builds(
    sample,
    num_latents=st.integers(1, 4),
    height=SIZES,
    width=SIZES,
    flags=st.tuples(*[st.booleans()] * len(FLAGS)),
    seed=st.integers(0, 99),
)
MODELS = {
    "small": random_model(),
    "complete": random_model(
        config=replace(
            CONFIG, patch_size=2, num_decoder_blocks=1, text_attention_dual=True, text_attention_single=True,
            prediction="velocity",
        )
    ),
    "joint": random_model(config=replace(CONFIG, audio_fusion="joint_attention", text_attention_single=True)),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=25)
@given(samples=st.lists(SAMPLES, min_size=2, max_size=4), random=st.randoms(use_true_random=False))
@torch.no_grad()
def test_packed_equals_one_by_one_in_any_order(name: str, samples: list[ModelInput], random):
    model = MODELS[name]
    alone = [model(one.noisy, one.sigma, one.conditions) for one in samples]
    order = random.sample(range(len(samples)), len(samples))
    packed = model.forward_packed([samples[i] for i in order])
    for place, i in enumerate(order):
        scale = float(alone[i].std())
        torch.testing.assert_close(packed[place] / scale, alone[i] / scale, atol=1e-5, rtol=1e-5)


def test_gradients_of_a_pack_are_those_of_its_samples():
    model = random_model()
    samples = [sample(3, 2, 4, (True, True, True, False), 1), sample(2, 4, 2, (False, True, False, True), 2)]

    def gradients(outputs: list[torch.Tensor]) -> dict[str, torch.Tensor]:
        model.zero_grad()
        sum(output.square().mean() for output in outputs).backward()  # pyright: ignore[reportAttributeAccessIssue]
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    together = gradients(model.forward_packed(samples))
    apart = gradients([model(one.noisy, one.sigma, one.conditions) for one in samples])
    assert together.keys() == apart.keys()
    for name, gradient in apart.items():
        scale = float(gradient.abs().max()) or 1.0
        torch.testing.assert_close(together[name] / scale, gradient / scale, atol=1e-5, rtol=0)


@pytest.mark.parametrize("lengths", [(3, 3), (2, 5, 1)])
def test_attention_stays_inside_each_run(lengths: tuple[int, ...]):
    draw = torch.Generator().manual_seed(0)
    keys = [n + 1 for n in lengths]
    q = torch.randn(sum(lengths), 2, 8, generator=draw)
    k, v = torch.randn(2, sum(keys), 2, 8, generator=draw)
    of_query = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
    of_key = torch.arange(len(keys)).repeat_interleave(torch.tensor(keys))
    dense = functional.scaled_dot_product_attention(
        *(t.transpose(0, 1) for t in (q, k, v)), attn_mask=of_query[:, None] == of_key
    )
    packed = attend(q, k, v, Runs.of(lengths, CPU), Runs.of(keys, CPU))
    torch.testing.assert_close(packed, dense.transpose(0, 1).flatten(1))


@pytest.mark.parametrize("lengths", [([3], [2]), ([3, 1], [2, 4]), ([2, 2, 2], [0, 3, 1])])
def test_two_streams_join_sample_after_sample_and_part_again(lengths: tuple[list[int], list[int]]):
    x_runs, y_runs = (Runs.of(of, CPU) for of in lengths)
    x, y = torch.arange(sum(lengths[0])), 100 + torch.arange(sum(lengths[1]))
    joint = Joint.of(x_runs, y_runs)
    together = joint.join(x, y)
    expected = [part for pair in zip(x.split(lengths[0]), y.split(lengths[1]), strict=True) for part in pair]
    assert together.tolist() == torch.cat(expected).tolist()
    assert joint.take_x(together).tolist() == x.tolist() and joint.take_y(together).tolist() == y.tolist()
    assert joint.both.offsets.tolist()[-1] == len(together)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("mixed", [True, False])
@torch.no_grad()
def test_half_precision_stays_near_the_whole(name: str, mixed: bool):
    """Mixed: weights in float32 under autocast; else weights and inputs in bfloat16."""
    samples = [sample(3, 2, 4, (True, True, True, False), 1), sample(2, 4, 2, (False, True, False, True), 2)]
    expected = MODELS[name].forward_packed(samples)
    model = copy.deepcopy(MODELS[name])
    if not mixed:
        model, samples = model.bfloat16(), [in_half_precision(one) for one in samples]
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        outputs = model.forward_packed(samples)
    for output, whole in zip(outputs, expected, strict=True):
        assert (output.float() - whole).std() < 0.1 * whole.std()


def in_half_precision(given: ModelInput) -> ModelInput:
    fields = {
        name: value.bfloat16() if value.is_floating_point() else value for name, value in vars(given.conditions).items()
    }
    return ModelInput(given.noisy.bfloat16(), given.sigma, replace(given.conditions, **fields))
