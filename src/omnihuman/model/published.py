"""The published layout of the open base: MotifVideoTransformer3DModel of huggingface/diffusers.

Names differ, shapes do not. Facts from diffusers 0.42.1, models/transformers/transformer_motif_video.py.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from omnihuman.config.schema.model import Model
from omnihuman.errors import UserError

CLASS_NAME = "MotifVideoTransformer3DModel"
_FIXED = {"patch_size_t": 1, "qk_norm": "rms_norm", "norm_type": "layer_norm"}
"""What the published class could do besides, and no published weights use."""
_PARTS = (
    # published, ours; the longer name comes first where one begins like another
    ("x_embedder.proj", "x_embedder"),
    ("context_embedder", "text_embedder"),
    ("image_embedder", "image_embedder"),
    ("time_text_embed.timestep_embedder", "sigma_embedding"),
    ("norm_out.linear", "norm_out"),
    ("proj_out", "proj_out"),
)
_IN_DUAL_BLOCKS = (
    ("norm1_context.linear", "text_modulation.linear"),
    ("norm1.linear", "modulation.linear"),
    ("attn.to_out.0", "to_out"),
    ("attn.to_add_out", "text_to_out"),
    ("attn.add_q_proj", "text_qkv.to_q"),
    ("attn.add_k_proj", "text_qkv.to_k"),
    ("attn.add_v_proj", "text_qkv.to_v"),
    ("attn.norm_added_q", "text_qkv.norm_q"),
    ("attn.norm_added_k", "text_qkv.norm_k"),
    ("attn", "qkv"),
    ("cross_attn.to_out.0", "text_attention.to_out"),
    ("cross_attn", "text_attention"),
    ("ff_context.net.0.proj", "text_feed_forward.linear_1"),
    ("ff_context.net.2", "text_feed_forward.linear_2"),
    ("ff.net.0.proj", "feed_forward.linear_1"),
    ("ff.net.2", "feed_forward.linear_2"),
)
_IN_SINGLE_BLOCKS = (
    ("norm.linear", "modulation.linear"),
    ("attn", "qkv"),
    ("cross_attn.to_out.0", "text_attention.to_out"),
    ("cross_attn", "text_attention"),
    ("proj_mlp", "proj_mlp"),
    ("proj_out", "proj_out"),
)


def published_name(name: str, config: Model) -> str:
    """The published name of one of the base's tensors."""
    block = re.fullmatch(r"(dual|single|decoder)_blocks\.(\d+)\.(.+)", name)
    if not block:
        return _renamed(name, _PARTS)
    kind, number, rest = block[1], int(block[2]), block[3]
    if kind == "dual":
        return f"transformer_blocks.{number}.{_renamed(rest, _IN_DUAL_BLOCKS)}"
    number += config.num_single_blocks if kind == "decoder" else 0
    return f"single_transformer_blocks.{number}.{_renamed(rest, _IN_SINGLE_BLOCKS)}"


def _renamed(name: str, table: tuple[tuple[str, str], ...]) -> str:
    for published, ours in table:
        if name.startswith(f"{ours}."):
            return published + name.removeprefix(ours)
    raise KeyError(f"{name} is not a tensor of the base")


def model_config(published: Mapping[str, Any], ours: Model) -> tuple[Model, int, int]:
    """The base's sizes in `ours`, its latent channels and its text width, from a published config.json.

    Raises:
        UserError: a key is missing, or the configuration is one that this implementation does not have.
    """
    try:
        for key, value in _FIXED.items():
            if published.get(key, value) != value:
                raise UserError(f"config.json: {key} is {published[key]!r}; only {value!r} is supported")
        heads, head_width = int(published["num_attention_heads"]), int(published["attention_head_dim"])
        channels = int(published["out_channels"])
        if int(published["in_channels"]) != 2 * channels + 1:
            raise UserError(
                f"config.json: in_channels is {published['in_channels']}: expected 2 x out_channels + 1 ="
                f" {2 * channels + 1}, for noisy latents, condition latents and a mask"
            )
        decoder = int(published.get("num_decoder_layers") or 0)
        config = replace(
            ours,
            width=heads * head_width,
            num_heads=heads,
            num_dual_blocks=int(published["num_layers"]),
            num_single_blocks=int(published["num_single_layers"]) - decoder,
            num_decoder_blocks=decoder,
            mlp_ratio=float(published["mlp_ratio"]),
            patch_size=int(published["patch_size"]),
            rope_theta=float(published["rope_theta"]),
            rope_axes=_rope_axes(published["rope_axes_dim"], head_width),
            text_attention_dual=bool(published["enable_text_cross_attention_dual"]),
            text_attention_single=bool(published["enable_text_cross_attention_single"]),
            image_width=int(published.get("image_embed_dim") or 0),
            prediction="velocity",
        )
        return config, channels, int(published["text_embed_dim"])
    except KeyError as error:
        raise UserError(f"config.json has no {error}: every size must be written out, class defaults differ") from error


def published_config(config: Model, latent_channels: int, text_width: int) -> dict[str, Any]:
    """The config.json that the published class reads."""
    return _FIXED | {
        "_class_name": CLASS_NAME,
        "in_channels": 2 * latent_channels + 1,
        "out_channels": latent_channels,
        "num_attention_heads": config.num_heads,
        "attention_head_dim": config.width // config.num_heads,
        "num_layers": config.num_dual_blocks,
        "num_single_layers": config.num_single_blocks + config.num_decoder_blocks,
        "num_decoder_layers": config.num_decoder_blocks,
        "mlp_ratio": config.mlp_ratio,
        "patch_size": config.patch_size,
        "rope_theta": config.rope_theta,
        "rope_axes_dim": list(config.rope_axes),
        "enable_text_cross_attention_dual": config.text_attention_dual,
        "enable_text_cross_attention_single": config.text_attention_single,
        "text_embed_dim": text_width,
        "image_embed_dim": config.image_width or None,
    }


def _rope_axes(axes: Any, head_width: int) -> tuple[int, int, int]:
    """Checked here, because the shape of no tensor depends on them."""
    if len(axes) != 3 or sum(axes) != head_width or any(axis <= 0 or axis % 2 for axis in axes):
        raise UserError(
            f"config.json: rope_axes_dim is {list(axes)}: three even numbers that add up to attention_head_dim ="
            f" {head_width}"
        )
    time, height, width = axes
    return int(time), int(height), int(width)
