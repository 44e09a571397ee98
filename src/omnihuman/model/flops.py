"""Floating-point operations of a forward pass, from the configuration and the lengths of the samples.

Counted as a throughput record is: a multiply-add is two operations; products of matrices, convolutions and attention
over real lengths; neither padding, nor what is computed again for the backward pass, nor the choice of each token's
level of noise by a product with zeros and ones, nor what costs less than a thousandth (norms, activations, rotation).
A training step is three forward passes: in the backward pass each product has two.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from omnihuman.batch import Widths
from omnihuman.conditions.audio import WINDOW
from omnihuman.config.schema.model import Model

_SIGMA_SINUSOIDS = 256


@dataclass(frozen=True)
class SampleLengths:
    """Tokens of one sample."""

    x: int
    """Reference and video."""
    text: int
    beside_text: int = 0
    """What stands beside the text in the second stream: a picture's tokens, or sound under joint attention."""

    @property
    def y(self) -> int:
        """Tokens of the second stream."""
        return self.text + self.beside_text


def base_flops(
    config: Model, latent_channels: int, text_width: int, samples: Sequence[SampleLengths], any_clean: bool = False
) -> int:
    """One forward pass of the base over packed samples, from latents and text embeddings; pictures are not embedded.

    Args:
        config: of the model.
        latent_channels: C.
        text_width: width of the text encoder's embeddings.
        samples: each sample's own lengths.
        any_clean: whether tokens of sigma 0 are among them, which make one more level of noise.
    """
    width, patch = config.width, config.patch_size**2
    x, y, text = (sum(getattr(sample, name) for sample in samples) for name in ("x", "y", "text"))
    levels = len(samples) + any_clean
    embedded = (
        _linear(x, (2 * latent_channels + 1) * patch, width)
        + _linear(text, text_width, width)
        + _linear(text, width, width)
        + _linear(levels, _SIGMA_SINUSOIDS + width, width)
    )
    text_attention = _linear(2 * (x + text), width, width)  # queries and output, keys and values
    text_attention += _attention(width, [(sample.x, sample.text) for sample in samples])
    joint = _attention(width, [(sample.x + sample.y, sample.x + sample.y) for sample in samples])
    twice = _attention(width, [(2 * sample.x, 2 * sample.x) for sample in samples])
    dual = 2 * _linear(levels, width, 6 * width) + _block_layers(config, x + y) + joint
    single = _linear(levels, width, 3 * width) + _block_layers(config, x + y) + joint
    decoder = _linear(levels, width, 3 * width) + _block_layers(config, 2 * x) + twice
    output = _linear(levels, width, 2 * width) + _linear(x, width, latent_channels * patch)
    return (
        embedded
        + config.num_dual_blocks * (dual + config.text_attention_dual * text_attention)
        + config.num_single_blocks * (single + config.text_attention_single * text_attention)
        + config.num_decoder_blocks * decoder
        + output
    )


def omnihuman_flops(
    config: Model,
    widths: Widths,
    samples: Sequence[tuple[int, int, int]],
    text: Sequence[int],
    reference_on: Sequence[bool] | None = None,
    audio_on: Sequence[bool] | None = None,
) -> int:
    """One forward pass, sound by cross-attention.

    The convolutions over maps of the pose and the weighing of the sound's layers are left out: their work is not the
    transformer's.

    Args:
        config: of the model.
        widths: of the encoded data.
        samples: latent frames, rows and columns of each sample, in latent positions.
        text: real text tokens of each sample.
        reference_on, audio_on: which samples have these conditions, which cost nothing where they are off; by default
            all.

    Raises:
        ValueError: sound stands in the joint attention.
    """
    if config.audio_fusion != "cross_attention":
        raise ValueError(f"audio_fusion is {config.audio_fusion!r}; operations are counted for 'cross_attention' alone")
    width, sound_width, area = config.width, config.audio_width, config.patch_size**2
    everywhere = [True] * len(samples)
    reference_on, audio_on = reference_on or everywhere, audio_on or everywhere
    grids = [(latents, height * columns // area) for latents, height, columns in samples]
    lengths = [
        SampleLengths((n + on) * place, of_text)
        for (n, place), of_text, on in zip(grids, text, reference_on, strict=True)
    ]
    frames = [grid for grid, on in zip(grids, audio_on, strict=True) if on]
    num_frames = sum(n for n, _ in frames)
    hearing = sum(n * place for n, place in frames)
    sound = config.audio_tokens * num_frames
    compressed = _linear(WINDOW * num_frames, widths.speech_width, sound_width) + _linear(
        num_frames, WINDOW * sound_width, config.audio_tokens * sound_width
    )
    listening = (
        _linear(2 * hearing, width, width)
        + _linear(sound, sound_width, 2 * width)
        + sum(n * _attention(width, [(place, config.audio_tokens)]) for n, place in frames)
    )
    blocks = config.num_dual_blocks + config.num_single_blocks + config.num_decoder_blocks
    pose = _linear(sum(sample.x for sample in lengths), 2 * config.pose_channels * area, width)
    base = base_flops(config, widths.latent_channels, widths.text_width, lengths, any_clean=any(reference_on))
    return base + pose + compressed + blocks * listening


def _linear(tokens: int, width_in: int, width_out: int) -> int:
    return 2 * tokens * width_in * width_out


def _block_layers(config: Model, tokens: int) -> int:
    """Queries, keys, values and output, and the two layers of the feed-forward."""
    return _linear(tokens, config.width, 4 * config.width + 2 * int(config.width * config.mlp_ratio))


def _attention(width: int, runs: Sequence[tuple[int, int]]) -> int:
    """Scores and weighed values of (queries, keys)."""
    return sum(4 * queries * keys * width for queries, keys in runs)
