"""The base of several sizes with random weights, ours and diffusers' over the same memory, and inputs for both."""

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from omnihuman.batch import Conditions, ModelInput, Widths
from omnihuman.conditions.audio import WINDOW
from omnihuman.config.schema.model import Model
from omnihuman.model.base_input import base_output
from omnihuman.model.mmdit import MMDiT
from omnihuman.model.omnihuman import OmniHumanTransformer
from omnihuman.model.published import published_config, published_name

CONFIGS = {
    "tiny": Model(
        width=64, num_heads=2, num_dual_blocks=1, num_single_blocks=2, num_decoder_blocks=1, patch_size=2,
        rope_axes=(8, 12, 12), text_attention_single=True,
    ),
    "small": Model(
        width=512, num_heads=8, num_dual_blocks=2, num_single_blocks=2, num_decoder_blocks=1, patch_size=2,
        rope_axes=(16, 24, 24), text_attention_single=True,
    ),
    # Motif-Video-2B without its place for a picture's embeddings: 2.03 billion parameters.
    "2b": Model(
        width=1536, num_heads=12, num_dual_blocks=12, num_single_blocks=16, num_decoder_blocks=8, patch_size=2,
        rope_axes=(16, 56, 56), text_attention_single=True, audio_width=768, audio_tokens=32, pose_channels=64,
    ),
}  # fmt: skip
WIDTHS = {
    "tiny": Widths(latent_channels=16, text_width=32, speech_width=24, speech_layers=2, num_keypoints=17),
    "small": Widths(latent_channels=16, text_width=512, speech_width=128, speech_layers=3, num_keypoints=17),
    "2b": Widths(latent_channels=16, text_width=2560, speech_width=768, speech_layers=13, num_keypoints=133),
}


@dataclass(frozen=True)
class Shape:
    """Samples of one size."""

    batch: int
    num_latents: int
    height: int  # in latent positions
    width: int
    num_text: int
    ragged: bool = False
    """Whether the first sample's prompt is shorter, by three eighths."""

    @staticmethod
    def parse(text: str) -> "Shape":
        """From `batch,latents,height,width,text` and perhaps `,ragged`."""
        numbers, ragged = text.removesuffix(",ragged"), text.endswith(",ragged")
        return Shape(*map(int, numbers.split(",")), ragged=ragged)

    @property
    def text_lengths(self) -> list[int]:
        """Real text tokens of each sample."""
        lengths = [self.num_text] * self.batch
        return [5 * self.num_text // 8, *lengths[1:]] if self.ragged else lengths

    def num_tokens(self, patch: int) -> int:
        """Video tokens of one sample."""
        return self.num_latents * self.height * self.width // patch**2

    def __str__(self) -> str:
        text = "/".join(map(str, dict.fromkeys(self.text_lengths)))
        return f"{self.batch} x {self.num_latents} x {self.height} x {self.width} latents, {text} text tokens"


@dataclass(frozen=True)
class Bases:
    """Two implementations with the same weights."""

    ours: MMDiT
    theirs: nn.Module | None
    """None where diffusers is not installed."""


def make_bases(size: str, device: torch.device, dtype: torch.dtype) -> Bases:
    """Random weights, small enough that activations stay finite; both models look at the same memory."""
    config, widths = CONFIGS[size], WIDTHS[size]
    with torch.device(device):
        ours = MMDiT(config, widths.latent_channels, widths.text_width).to(dtype)
    randomise(ours)
    if importlib.util.find_spec("diffusers") is None:
        return Bases(ours, None)
    from diffusers import MotifVideoTransformer3DModel

    with torch.device("meta"):
        theirs = MotifVideoTransformer3DModel.from_config(
            published_config(config, widths.latent_channels, widths.text_width)
        )
    weights = {published_name(name, config): value for name, value in ours.state_dict().items()}
    theirs.load_state_dict(weights, assign=True)
    theirs.requires_grad_(True)
    return Bases(ours, theirs)


def make_omnihuman(size: str, device: torch.device, dtype: torch.dtype) -> OmniHumanTransformer:
    """All conditions around the base, random weights: zeros would multiply faster than numbers do."""
    with torch.device(device):
        model = OmniHumanTransformer(CONFIGS[size], WIDTHS[size]).to(dtype)
    randomise(model)
    return model


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """What the trainer's precision bf16-true does around a step: new tensors have the dtype of the weights."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@torch.no_grad()
def randomise(model: nn.Module) -> None:
    """Norms keep their scale."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.normal_(std=0.02)


def base_calls(
    bases: Bases, size: str, shape: Shape, device: torch.device, dtype: torch.dtype
) -> tuple[Callable[[], Tensor], Callable[[], Tensor] | None]:
    """Forward passes of both on the same input; a mask is given only where prompts differ in length."""
    config, widths = CONFIGS[size], WIDTHS[size]
    draw = torch.Generator().manual_seed(1)
    grid = (shape.num_latents, shape.height, shape.width)
    latents = torch.randn(shape.batch, 2 * widths.latent_channels + 1, *grid, generator=draw).to(device, dtype)
    text = torch.randn(shape.batch, shape.num_text, widths.text_width, generator=draw).to(device, dtype)
    sigma = torch.linspace(0.3, 0.9, shape.batch, device=device)
    lengths = torch.tensor(shape.text_lengths)[:, None]
    mask = (torch.arange(shape.num_text) < lengths).to(device) if shape.ragged else None
    assert config.num_heads * sum(config.rope_axes) == config.width

    def ours() -> Tensor:
        return base_output(bases.ours, latents, sigma, text, mask)

    def theirs() -> Tensor:
        assert bases.theirs is not None
        return bases.theirs(
            hidden_states=latents,
            timestep=1000.0 * sigma,
            encoder_hidden_states=text,
            encoder_attention_mask=mask,
            return_dict=False,
        )[0]

    return ours, None if bases.theirs is None else theirs


def make_input(
    size: str, shape: tuple[int, int, int], text_lengths: list[int], device: torch.device, dtype: torch.dtype
) -> ModelInput:
    """Noisy samples of one size (latent frames, rows, columns), one for each prompt, with every condition on."""
    widths, batch, (num_latents, height, width) = WIDTHS[size], len(text_lengths), shape
    draw = torch.Generator().manual_seed(2)

    def normal(*sizes: int) -> Tensor:
        return torch.randn(*sizes, generator=draw).to(device, dtype)

    on = torch.ones(batch, dtype=torch.bool, device=device)
    num_text, num_frames = max(text_lengths), 4 * (num_latents - 1) + 1
    return ModelInput(
        noisy=normal(batch, widths.latent_channels, *shape),
        sigma=torch.full((batch,), 0.6, device=device, dtype=dtype),
        conditions=Conditions(
            text=normal(batch, num_text, widths.text_width),
            text_mask=(torch.arange(num_text) < torch.tensor(text_lengths)[:, None]).to(device),
            reference=normal(batch, widths.latent_channels, height, width),
            reference_on=on,
            reference_keypoints=normal(batch, widths.num_keypoints, 3).sigmoid(),
            speech=normal(batch, num_latents, WINDOW, widths.speech_layers, widths.speech_width),
            speech_mask=torch.ones(batch, num_latents, WINDOW, dtype=torch.bool, device=device),
            audio_on=on,
            keypoints=normal(batch, num_frames, widths.num_keypoints, 3).sigmoid(),
            pose_on=on,
            motion=normal(batch, widths.latent_channels, 2, height, width),
            motion_on=on,
        ),
    )
