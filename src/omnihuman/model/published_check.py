"""Whether the files of a published base are what their config.json says, from their headers alone."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from omnihuman.config.schema.model import Model
from omnihuman.errors import UserError
from omnihuman.model.mmdit import MMDiT
from omnihuman.model.published import model_config, published_name
from omnihuman.model.published_files import MOTIF, PublishedFiles, TensorHeader

_MOST_LISTED = 10
_TEXT_ATTENTION = "cross_attn.{to_q,to_k,to_v,norm_q,norm_k,to_out.0}"
_IN_TEXT_ATTENTION = re.compile(r"cross_attn\.((to_q|to_k|to_v|to_out\.0)\.(weight|bias)|norm_[qk]\.weight)")
_EARLIER_LAYOUT = re.compile(r"\.cross_attn_(query_proj|query_norm|out_proj)\.")
"""Names in MotifTechnologies/ComfyUI-MotifVideo2B, models/transformer/transformer_motif_video.py."""


@dataclass(frozen=True)
class BaseShape:
    """What a base's config.json says."""

    model: Model  # its sizes, with ours where it has none
    latent_channels: int
    text_width: int

    def on_meta(self) -> MMDiT:
        """The base without memory, for its names and shapes."""
        with torch.device("meta"):
            return MMDiT(self.model, self.latent_channels, self.text_width)


def base_shape(files: PublishedFiles, ours: Model) -> BaseShape:
    """The sizes of a base whose every tensor is there, in its shape, and known.

    Raises:
        UserError: it is of another layout, or does not fit its config.json.
    """
    _check_layout(files)
    try:
        shape = BaseShape(*model_config(files.config, ours))
        names = {published_name(name, shape.model): value for name, value in shape.on_meta().state_dict().items()}
    except (ValueError, TypeError, ZeroDivisionError, RuntimeError) as error:
        raise UserError(f"{files.folder}/config.json has a size that cannot be: {error}") from error
    problems = differences(files.headers, {name: tuple(value.shape) for name, value in names.items()})
    if problems:
        raise UserError(
            "\n".join([f"{files.folder} does not hold the tensors that its config.json asks for:", *problems])
        )
    return shape


def _check_layout(files: PublishedFiles) -> None:
    remedy = f"take the present files of {MOTIF}, in which it is {_TEXT_ATTENTION}"
    if earlier := [name for name in files.headers if _EARLIER_LAYOUT.search(name)]:
        raise UserError(
            f"{files.folder} is of the earlier layout of Motif-Video, whose text cross-attention has a query projection"
            " and a LayerNorm of its own and shares keys and values with the joint attention"
            f" ({listed(earlier)}). It is another network: {remedy}"
        )
    crossing = [name for name in files.headers if "cross_att" in name]
    if strange := [name for name in crossing if not _IN_TEXT_ATTENTION.fullmatch(_inside_block(name))]:
        raise UserError(
            f"{files.folder} has a text cross-attention of another layout ({listed(strange)}). It is another network:"
            f" {remedy}"
        )


def _inside_block(name: str) -> str:
    return re.sub(r"^(single_)?transformer_blocks\.\d+\.", "", name)


def differences(headers: Mapping[str, TensorHeader], expected: Mapping[str, tuple[int, ...]]) -> list[str]:
    """One line for each kind of mistake: what is missing, surplus or of another shape."""
    misshapen = [
        f"{name} is {list(headers[name].shape)}, expected {list(shape)}"
        for name, shape in expected.items()
        if name in headers and headers[name].shape != shape
    ]
    kinds = {
        "missing": [name for name in expected if name not in headers],
        "surplus": [name for name in headers if name not in expected],
        "of another shape": misshapen,
    }
    return [f"{len(names)} {kind}: {listed(names)}" for kind, names in kinds.items() if names]


def listed(names: list[str]) -> str:
    """The first names, and how many more there are."""
    more = len(names) - _MOST_LISTED
    return ", ".join(names[:_MOST_LISTED]) + (f" and {more} more" if more > 0 else "")
