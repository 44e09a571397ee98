"""Our forward pass against the published class's, on a user's own weights."""

import gc
import logging
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from omnihuman.config.schema.model import Model
from omnihuman.errors import UserError
from omnihuman.model.base_input import base_output
from omnihuman.model.published import published_name
from omnihuman.model.published_check import BaseShape, base_shape
from omnihuman.model.published_files import PublishedFiles, open_published

TOLERANCES = {"float32": 1e-4, "bfloat16": 0.1}
"""Largest difference in standard deviations of the output; the two classes add up in another order."""
_SEED = 0
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Comparison:
    """Two outputs of the same weights and inputs."""

    max_difference: float
    mean_difference: float
    std: float  # of the published class's output
    tolerance: float  # of the largest difference, in `std`

    @property
    def matches(self) -> bool:
        """Whether the largest difference is within the tolerance; never with NaN."""
        return self.max_difference <= self.tolerance * self.std

    def lines(self) -> list[str]:
        """For people."""
        verdict = "match" if self.matches else "DO NOT MATCH"
        return [
            f"largest difference {self.max_difference:.3g}, {self.max_difference / self.std:.3g} of the output's"
            f" standard deviation {self.std:.3g}; tolerance {self.tolerance:g}",
            f"mean difference    {self.mean_difference:.3g}, {self.mean_difference / self.std:.3g} of it",
            f"the forward passes {verdict}",
        ]


def verify_base(place: str, *, variant: str = "", dtype: str = "float32", device: str = "cpu") -> Comparison:
    """One forward pass of each class on seeded noise, three latent frames of 4 x 6 patches and a ragged text mask.

    One class after the other is in memory.

    Args:
        place: see `open_published`.
        dtype: that weights and inputs are cast to, one of `TOLERANCES`.
        device: of torch, e.g. `cuda`.

    Raises:
        UserError: the base cannot be imported, diffusers or the device is missing, or the output is constant.
    """
    files = open_published(place, variant)
    shape = base_shape(files, Model())
    try:
        target = torch.device(device)
        torch.zeros(1, device=target)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {device} cannot be used here: {str(error).splitlines()[0]}") from error
    number = getattr(torch, dtype)
    inputs = {
        name: value.to(target, number if value.is_floating_point() and name != "sigma" else value.dtype)
        for name, value in _inputs(shape).items()
    }
    with torch.inference_mode():
        expected = _theirs(files, inputs, number, target)
        gc.collect()
        came = _ours(files, shape, inputs, number, target)
    difference = (came - expected).abs()
    std = float(expected.std())
    if std == 0:
        raise UserError(f"{place}: the output is constant, so that nothing can be compared; is this a trained model?")
    return Comparison(float(difference.max()), float(difference.mean()), std, TOLERANCES[dtype])


def _inputs(shape: BaseShape) -> dict[str, Tensor]:
    draw, patch = torch.Generator().manual_seed(_SEED), shape.model.patch_size
    inputs = {
        "latents": torch.randn(2, 2 * shape.latent_channels + 1, 3, 4 * patch, 6 * patch, generator=draw),
        "sigma": torch.tensor([0.3, 0.85]),
        "text": torch.randn(2, 7, shape.text_width, generator=draw),
        "mask": torch.arange(7) < torch.tensor([[4], [7]]),
    }
    if shape.model.image_width:
        inputs["image"] = torch.randn(2, 5, shape.model.image_width, generator=draw)
    return inputs


def _theirs(files: PublishedFiles, given: dict[str, Any], dtype: torch.dtype, device: torch.device) -> Tensor:
    try:
        from diffusers.models.transformers.transformer_motif_video import MotifVideoTransformer3DModel
    except ImportError as error:
        raise UserError("verify compares with diffusers, which is missing: pip install 'diffusers>=0.42'") from error
    log.info("running the published class")
    model: Any = MotifVideoTransformer3DModel.from_pretrained(
        files.folder,
        variant=files.variant or None,
        torch_dtype=dtype,
        use_safetensors=True,
        local_files_only=True,
        low_cpu_mem_usage=find_spec("accelerate") is not None,  # else it warns that it cannot
    )
    return (
        model.to(device)
        .eval()(
            hidden_states=given["latents"],
            timestep=1000.0 * given["sigma"],
            encoder_hidden_states=given["text"],
            encoder_attention_mask=given["mask"],
            image_embeds=given.get("image"),
        )
        .sample.float()
        .cpu()
    )


def _ours(
    files: PublishedFiles, shape: BaseShape, given: dict[str, Tensor], dtype: torch.dtype, device: torch.device
) -> Tensor:
    log.info("running ours")
    base = shape.on_meta()
    names = {published_name(name, shape.model): name for name in base.state_dict()}
    weights = {names[name]: tensor.to(device, dtype) for name, tensor in files.tensors()}
    base.load_state_dict(weights, assign=True)
    return base_output(base.eval(), **given).float().cpu()
