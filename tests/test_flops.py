"""The count of operations against PyTorch's own, which looks at every call."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from tests.tiny import CONFIG, WIDTHS, random_conditions, random_model
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from omnihuman.batch import Conditions, ModelInput
from omnihuman.config.schema.model import Model
from omnihuman.model.base_input import base_output
from omnihuman.model.flops import SampleLengths, base_flops, omnihuman_flops
from omnihuman.model.mmdit import MMDiT
from omnihuman.model.omnihuman import OmniHumanTransformer

COMPLETE = replace(
    CONFIG, patch_size=2, num_dual_blocks=2, num_decoder_blocks=2, text_attention_dual=True,
    text_attention_single=True, prediction="velocity",
)  # fmt: skip


def counted(call: Callable[[], object]) -> int:
    """By PyTorch, which sees the two products of an attention only where it is computed by them."""
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def counted_with_gradients(call: Callable[[], torch.Tensor]) -> int:
    """The same of a pass forth and, where there is a gradient, back."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        output = call()
        if output.requires_grad:
            output.backward()
    return counter.get_total_flops()


def poses(model: OmniHumanTransformer, conditions: Conditions, height: int, width: int) -> int:
    """What the convolutions over the maps of the driving and the reference's pose cost."""
    of_both = (conditions.keypoints, conditions.reference_keypoints[:, None])
    return sum(counted(lambda k=k: model.pose_condition(k, conditions.pose_on, height, width)) for k in of_both)


def choices(config, x: list[int], y: list[int], any_clean: bool) -> int:
    """What the choice of levels costs: none among runs of equal length, as long as no token is clean."""
    of_x, of_y, of_z = (
        sum(lengths) if any_clean or len(set(lengths)) > 1 else 0
        for lengths in (x, y, [sum(pair) for pair in zip(x, y, strict=True)])
    )
    chunks = 6 * config.num_dual_blocks * (of_x + of_y) + 3 * config.num_single_blocks * of_z
    chunks += 3 * config.num_decoder_blocks * 2 * of_x + 2 * of_x
    return 2 * (len(x) + any_clean) * config.width * chunks


@pytest.mark.parametrize("config", [CONFIG, COMPLETE], ids=["small", "complete"])
@pytest.mark.parametrize("text", [[7], [4, 7], [7, 7]])
def test_base_equals_what_is_counted(config, text: list[int]):
    batch, patch = len(text), config.patch_size
    base = MMDiT(config, 16, 32)
    mask = torch.arange(7) < torch.tensor(text)[:, None]
    total = counted(
        lambda: base_output(base, torch.randn(batch, 33, 3, 8, 12), torch.rand(batch), torch.randn(batch, 7, 32), mask)
    )
    x = [3 * 8 * 12 // patch**2] * batch
    expected = base_flops(config, 16, 32, [SampleLengths(*pair) for pair in zip(x, text, strict=True)])
    assert total == expected + choices(config, x, text, any_clean=False)


@pytest.mark.parametrize("config", [CONFIG, COMPLETE], ids=["small", "complete"])
def test_all_conditions_equal_what_is_counted(config):
    sizes, text = [(3, 4, 8), (2, 8, 4)], [4, 4]
    model = random_model(config=config)
    inputs = [
        ModelInput(torch.randn(1, WIDTHS.latent_channels, *size), torch.rand(1), random_conditions(1, *size))
        for size in sizes
    ]
    total = counted(lambda: model.forward_packed(inputs))
    pose = sum(poses(model, one.conditions, *one.noisy.shape[3:]) for one in inputs)
    x = [(n + 1) * height * width // config.patch_size**2 for n, height, width in sizes]
    expected = omnihuman_flops(config, WIDTHS, sizes, text) + pose + choices(config, x, text, any_clean=True)
    assert total == expected


FROZEN = {
    "nothing": (),
    "base": ("base.",),
    "audio": ("audio_",),
    "pose": ("pose_",),
    "base and pose, so that nothing before the first sound is trained": ("base.", "pose_"),
    "all but the end": ("base.x", "base.t", "base.s", "base.d", "pose_", "audio_"),
    "the text's way in": ("base.text_embedder.", "base.dual_blocks.0.text_", "base.sigma_embedding."),
    "weights alone": ("base.single_blocks.0.qkv.to_q.weight", "base.dual_blocks.0.to_out.weight"),
}


@pytest.mark.parametrize("config", [CONFIG, COMPLETE], ids=["small", "complete"])
@pytest.mark.parametrize("frozen", FROZEN)
def test_a_training_step_costs_what_its_gradients_need(config: Model, frozen: str):
    sizes, text = [(3, 4, 8), (2, 8, 4)], [4, 4]
    model = random_model(config=config).train()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith(FROZEN[frozen] or ("nothing",)))
    inputs = [
        ModelInput(torch.randn(1, WIDTHS.latent_channels, *size), torch.rand(1), random_conditions(1, *size))
        for size in sizes
    ]
    total = counted_with_gradients(lambda: torch.stack([out.sum() for out in model.forward_packed(inputs)]).sum())

    def poses_of(one: ModelInput) -> torch.Tensor:
        given, (height, width) = one.conditions, one.noisy.shape[3:]
        of_both = (given.keypoints, given.reference_keypoints[:, None])
        return torch.stack([model.pose_condition(k, given.pose_on, height, width).sum() for k in of_both]).sum()

    pose = sum(counted_with_gradients(lambda one=one: poses_of(one)) for one in inputs)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    x = [(n + 1) * height * width // config.patch_size**2 for n, height, width in sizes]
    expected = omnihuman_flops(config, WIDTHS, sizes, text, trains=trained.__contains__)
    of_levels = level_choices(config, x, text, trained)
    assert total == expected + pose + of_levels
    forward = omnihuman_flops(config, WIDTHS, sizes, text)
    assert forward < expected < 3 * forward, "what enters the network has no gradient"


def level_choices(config: Model, x: list[int], y: list[int], trained: set[str]) -> int:
    """What the choice of levels costs forth, and back where what is chosen has a gradient."""
    number = (len(x) + 1) * 2 * config.width

    def cost(layer: str, tokens: int, chunks: int) -> int:
        back = any(name.startswith(("base.sigma_embedding.", f"base.{layer}")) for name in trained)
        return number * tokens * chunks * (1 + back)

    total = cost("norm_out", sum(x), 2)
    for block in range(config.num_dual_blocks):
        total += cost(f"dual_blocks.{block}.modulation", sum(x), 6)
        total += cost(f"dual_blocks.{block}.text_modulation", sum(y), 6)
    for block in range(config.num_single_blocks):
        total += cost(f"single_blocks.{block}.modulation", sum(x) + sum(y), 3)
    for block in range(config.num_decoder_blocks):
        total += cost(f"decoder_blocks.{block}.modulation", 2 * sum(x), 3)
    return total


def test_sound_in_the_joint_attention_is_not_counted():
    with pytest.raises(ValueError, match="joint_attention"):
        omnihuman_flops(replace(CONFIG, audio_fusion="joint_attention"), WIDTHS, [(3, 4, 4)], [4])
