"""What a model can take: every mistake is named with what came, what was expected and the remedy."""

from collections.abc import Iterator

import torch
from torch import Tensor

from omnihuman.batch import Conditions, ModelInput, Widths
from omnihuman.conditions.audio import WINDOW
from omnihuman.conditions.motion_frames import NUM_MOTION_LATENTS
from omnihuman.config.schema.model import Model
from omnihuman.encoders.video_codec import SPATIAL_FACTOR, TEMPORAL_FACTOR, num_frames


def check_input(given: ModelInput, config: Model, widths: Widths) -> None:
    """Raises `ValueError` with one line per mistake."""
    problems = list(_problems(given, config, widths))
    if problems:
        raise ValueError("\n".join(problems))


def _problems(given: ModelInput, config: Model, widths: Widths) -> Iterator[str]:
    noisy, conditions = given.noisy, given.conditions
    if noisy.dim() != 5 or noisy.shape[1] != widths.latent_channels:
        yield (
            f"noisy is {_shape(noisy)}: expected [B, {widths.latent_channels}, T, h, w]; encode the video with the"
            " codec that the model was trained with"
        )
        return
    batch, channels, num_latents, height, width = noisy.shape
    multiple = SPATIAL_FACTOR * config.patch_size
    if 0 in noisy.shape or height % config.patch_size or width % config.patch_size:
        yield (
            f"noisy is {_shape(noisy)}: height and width must be multiples of the patch, {config.patch_size} latents;"
            f" crop or pad the video to multiples of {multiple} pixels"
        )
    if conditions.text.dim() != 3:
        yield f"conditions.text is {_shape(conditions.text)}: expected [{batch}, any, {widths.text_width}]"
        return
    in_midstream = conditions.keypoints.shape[1:2] == (TEMPORAL_FACTOR * num_latents,)
    frames = TEMPORAL_FACTOR * num_latents if in_midstream else num_frames(num_latents)
    expected: dict[str, tuple[int | None, ...]] = {
        "text": (batch, None, widths.text_width),
        "text_mask": (batch, conditions.text.shape[1]),
        "reference": (batch, channels, height, width),
        "reference_keypoints": (batch, widths.num_keypoints, 3),
        "speech": (batch, num_latents, WINDOW, widths.speech_layers, widths.speech_width),
        "speech_mask": (batch, num_latents, WINDOW),
        "keypoints": (batch, frames, widths.num_keypoints, 3),
        "motion": (batch, channels, None if num_latents < NUM_MOTION_LATENTS else NUM_MOTION_LATENTS, height, width),
    }
    flags: dict[str, tuple[int | None, ...]] = dict.fromkeys(
        ("reference_on", "audio_on", "pose_on", "motion_on"), (batch,)
    )
    if given.sigma.shape != (batch,):
        yield f"sigma is {_shape(given.sigma)}: expected [{batch}], one level of noise a sample"
    elif not given.sigma.is_floating_point() or given.sigma.min() < 0 or given.sigma.max() > 1:
        yield (
            f"sigma is {given.sigma.tolist()}: expected floating point from 0 (data) to 1 (noise); divide diffusers'"
            " timesteps by 1000"
        )
    yield from _wrong_shapes(conditions, expected | flags)
    yield from _wrong_types(noisy, conditions, (*flags, "text_mask", "speech_mask"))
    if conditions.text_mask.shape == (batch, conditions.text.shape[1]) and not conditions.text_mask.any(dim=1).all():
        yield "text_mask has a sample without any token: where text is off, give the empty prompt's embedding"
    if num_latents < NUM_MOTION_LATENTS and bool(conditions.motion_on.any()):
        yield f"noisy has {num_latents} latent frame, fewer than the {NUM_MOTION_LATENTS} of motion: turn motion off"


def _wrong_shapes(conditions: Conditions, expected: dict[str, tuple[int | None, ...]]) -> Iterator[str]:
    for name, shape in expected.items():
        came = getattr(conditions, name)
        fits = came.dim() == len(shape) and all(
            want in (None, size) for size, want in zip(came.shape, shape, strict=True)
        )
        if not fits:
            sizes = ", ".join("any" if size is None else str(size) for size in shape)
            yield f"conditions.{name} is {_shape(came)}: expected [{sizes}]; its sizes follow noisy and the encoders"


def _wrong_types(noisy: Tensor, conditions: Conditions, flags: tuple[str, ...]) -> Iterator[str]:
    if noisy.dtype == torch.float64:
        yield f"noisy is {noisy.dtype}: expected the type of the weights; convert it with .float()"
    if not noisy.is_floating_point():
        yield f"noisy is {noisy.dtype}: expected floating point; latents are not pixels, encode them first"
    for name in flags:
        if getattr(conditions, name).dtype != torch.bool:
            yield f"conditions.{name} is {getattr(conditions, name).dtype}: expected torch.bool; compare with > 0"
    for name in ("text", "reference", "speech", "keypoints", "reference_keypoints", "motion"):
        came = getattr(conditions, name)
        if not came.is_floating_point():
            yield f"conditions.{name} is {came.dtype}: expected floating point; convert it with .float()"


def _shape(tensor: Tensor) -> str:
    return str(list(tensor.shape))
