"""The base against the published class of diffusers, in float32 on a tiny but complete configuration."""

import json
from dataclasses import replace

import pytest
import torch
from diffusers import MotifVideoTransformer3DModel
from torch.nn import functional

from omnihuman.config.schema.model import Model
from omnihuman.errors import UserError
from omnihuman.model.base_input import base_output
from omnihuman.model.mmdit import MMDiT
from omnihuman.model.published import model_config, published_config, published_name

TINY = {
    "in_channels": 33, "out_channels": 16, "num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 2,
    "num_single_layers": 3, "num_decoder_layers": 1, "mlp_ratio": 4.0, "patch_size": 2, "text_embed_dim": 32,
    "image_embed_dim": 8, "rope_theta": 1e4, "rope_axes_dim": (4, 6, 6), "enable_text_cross_attention_dual": True,
    "enable_text_cross_attention_single": True,
}  # fmt: skip


@pytest.fixture(scope="module")
def published() -> MotifVideoTransformer3DModel:
    """Every parameter random: zero biases and unit norms would hide mistakes.

    What a norm follows is small, so that a wrong eps cannot hide behind it.
    """
    torch.manual_seed(0)
    model = MotifVideoTransformer3DModel(**TINY)
    before_a_norm = ("to_q.", "to_k.", "add_q_proj.", "add_k_proj.", "x_embedder.", "context_embedder.linear_2.")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(std=0.002 if any(part in name for part in before_a_norm) else 0.2)
    return model


def with_weights_of(published: MotifVideoTransformer3DModel, **changes) -> MMDiT:
    config, channels, text_width = model_config(dict(published.config), Model())
    base = MMDiT(replace(config, **changes), channels, text_width)
    weights = published.state_dict()
    kept = {name: weights[published_name(name, config)] for name in base.state_dict()}
    assert changes or len(kept) == len(weights)
    base.load_state_dict(kept)
    return base


def inputs(batch: int = 2) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    mask = torch.arange(7) < torch.tensor([[4], [7]])[:batch]
    return {
        "latents": torch.randn(batch, 33, 3, 8, 12, generator=draw),
        "sigma": torch.tensor([0.3, 0.85])[:batch],
        "text": torch.randn(batch, 7, 32, generator=draw),
        "mask": mask,
        "image": torch.randn(batch, 5, 8, generator=draw),
    }


def theirs(published: MotifVideoTransformer3DModel, given: dict[str, torch.Tensor]) -> torch.Tensor:
    return published(
        hidden_states=given["latents"],
        timestep=1000.0 * given["sigma"],
        encoder_hidden_states=given["text"],
        encoder_attention_mask=given.get("mask"),
        image_embeds=given.get("image"),
    ).sample


@pytest.mark.parametrize("absent", [(), ("mask",), ("image",), ("mask", "image")])
@pytest.mark.parametrize("batch", [1, 2])
def test_forward_equals_the_published_class(published, batch: int, absent: tuple[str, ...]):
    given = {name: value for name, value in inputs(batch).items() if name not in absent}
    expected = theirs(published, given)
    assert expected.std() > 0.1
    torch.testing.assert_close(base_output(with_weights_of(published), **given), expected, atol=1e-5, rtol=0)


def test_gradients_equal_those_of_the_published_class(published):
    base, given = with_weights_of(published), inputs()
    weight = torch.randn(2, 16, 3, 8, 12, generator=torch.Generator().manual_seed(2))
    published.zero_grad()
    (theirs(published, given) * weight).mean().backward()
    (base_output(base, **given) * weight).mean().backward()
    expected = dict(published.named_parameters())
    for name, parameter in base.named_parameters():
        gradient = expected[published_name(name, base.config)].grad
        assert gradient is not None and parameter.grad is not None, name
        scale = float(gradient.abs().max())  # of some norms the gradient itself is below any fixed tolerance
        torch.testing.assert_close(parameter.grad / scale, gradient / scale, atol=1e-4, rtol=0, msg=name)
        assert (parameter.grad - gradient).abs().max() <= 1e-5, name


@pytest.mark.parametrize(
    "changes", [{"rope_theta": 256.0}, {"text_attention_dual": False}, {"text_attention_single": False}]
)
def test_a_changed_base_is_noticed(published, changes):
    difference = base_output(with_weights_of(published, **changes), **inputs()) - theirs(published, inputs())
    assert difference.abs().max() > 1e-3


@pytest.mark.parametrize("norm", ["rms_norm", "layer_norm"])
def test_a_changed_eps_is_noticed(published, norm: str, monkeypatch: pytest.MonkeyPatch):
    base = with_weights_of(published)
    if norm == "rms_norm":
        for module in base.modules():
            if isinstance(module, torch.nn.RMSNorm):
                module.eps = 1e-5
    else:
        original = functional.layer_norm
        monkeypatch.setattr(functional, "layer_norm", lambda x, shape, **_: original(x, shape, eps=1e-5))
    given = inputs() if norm == "rms_norm" else {k: v for k, v in inputs().items() if k != "image"}
    changed = base_output(base, **given)
    monkeypatch.undo()
    assert (changed - theirs(published, given)).abs().max() > 1e-3


@pytest.mark.parametrize("axes", [(4, 6, 4), (4, 6, 8), (5, 5, 6)])
def test_axes_of_rope_that_no_head_has_are_refused(axes: tuple[int, int, int]):
    with pytest.raises(UserError, match=r"rope_axes_dim is .* add up to attention_head_dim = 16"):
        model_config(TINY | {"rope_axes_dim": axes}, Model())


def test_configuration_survives_the_round_trip(published, tmp_path):
    config, channels, text_width = model_config(dict(published.config), Model())
    (tmp_path / "config.json").write_text(json.dumps(published_config(config, channels, text_width)))
    again = MotifVideoTransformer3DModel.from_config(json.loads((tmp_path / "config.json").read_text()))
    assert {k: v for k, v in again.config.items() if k in TINY} == {
        k: list(v) if isinstance(v, tuple) else v for k, v in TINY.items()
    }
    assert model_config(dict(again.config), Model()) == (config, channels, text_width)
