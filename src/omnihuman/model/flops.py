"""Floating-point operations of a forward pass or a training step, from the configuration and the samples' lengths.

Counted as a throughput record is: a multiply-add is two operations; products of matrices, convolutions and attention
over real lengths; neither padding, nor what is computed again for the backward pass, nor the choice of each token's
level of noise by a product with zeros and ones, nor what costs less than a thousandth (norms, activations, rotation).

A training step is almost three forward passes where everything is trained: in the backward pass each product has two,
one for each factor's gradient. That of a weight falls away where it is frozen, that of an input where nothing before it
is trained. A fused attention kernel computes all its gradients, and its scores again; counted is what is needed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from omnihuman.batch import Widths
from omnihuman.conditions.audio import WINDOW
from omnihuman.config.schema.model import Model

_SIGMA_SINUSOIDS = 256

Trains = Callable[[str], bool]
"""Whether the parameter of a name is trained."""


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


@dataclass(frozen=True)
class Heard:
    """Sound of a pack."""

    sound: int
    """Its tokens."""
    listeners: int
    """Video tokens that hear."""
    frames: Sequence[tuple[int, int]]
    """Listeners and sound tokens of each latent frame."""


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
    tally = _Tally(None)
    _Walk(tally, config, samples, any_clean).base(latent_channels, text_width)
    return tally.flops


def omnihuman_flops(
    config: Model,
    widths: Widths,
    samples: Sequence[tuple[int, int, int]],
    text: Sequence[int],
    reference_on: Sequence[bool] | None = None,
    audio_on: Sequence[bool] | None = None,
    trains: Trains | None = None,
) -> int:
    """One forward pass, and the backward pass where weights are trained; sound by cross-attention.

    The convolutions over maps of the pose and the weighing of the sound's layers are left out: their work is not the
    transformer's.

    Args:
        config: of the model.
        widths: of the encoded data.
        samples: latent frames, rows and columns of each sample, in latent positions.
        text: real text tokens of each sample.
        reference_on, audio_on: which samples have these conditions, which cost nothing where they are off; by default
            all.
        trains: which parameters are trained; by default the forward pass alone is counted.

    Raises:
        ValueError: sound stands in the joint attention.
    """
    if config.audio_fusion != "cross_attention":
        raise ValueError(f"audio_fusion is {config.audio_fusion!r}; operations are counted for 'cross_attention' alone")
    everywhere, area = [True] * len(samples), config.patch_size**2
    reference_on, audio_on = reference_on or everywhere, audio_on or everywhere
    grids = [(latents, height * columns // area) for latents, height, columns in samples]
    lengths = [
        SampleLengths((n + on) * place, of_text)
        for (n, place), of_text, on in zip(grids, text, reference_on, strict=True)
    ]
    frames = [
        (place, config.audio_tokens) for (n, place), on in zip(grids, audio_on, strict=True) if on for _ in range(n)
    ]
    heard = Heard(config.audio_tokens * len(frames), sum(place for place, _ in frames), frames)
    tally = _Tally(trains)
    walk = _Walk(tally, config, lengths, any(reference_on))
    walk.base(widths.latent_channels, widths.text_width, heard, widths.speech_width)
    return tally.flops


class _Tally:
    """Adds products up in the order of the forward pass, knowing of each tensor whether its gradient is needed."""

    def __init__(self, trains: Trains | None) -> None:
        self._trains = trains or (lambda name: False)
        self.flops = 0

    def trains(self, *names: str) -> bool:
        """Whether any of these parameters is trained."""
        return any(map(self._trains, names))

    def linear(self, name: str, tokens: int, width_in: int, width_out: int, needs: bool) -> bool:
        """A layer's product; `needs` says it of the gradient of the input, what is returned of that of the output."""
        weight = self._trains(f"{name}.weight")
        self.flops += 2 * tokens * width_in * width_out * (1 + weight + needs)
        return needs or weight or self._trains(f"{name}.bias")

    def attention(self, width: int, runs: Sequence[tuple[int, int]], query: bool, key: bool, value: bool) -> bool:
        """Scores and weighed values of (queries, keys)."""
        scores = query or key
        products = 2 + scores + query + key + value  # of the scores, then of each factor
        self.flops += 2 * sum(queries * keys for queries, keys in runs) * width * products
        return scores or value


class _Walk:
    """The forward pass of `OmniHumanTransformer` and `MMDiT`, product by product, by the names of their parameters."""

    def __init__(self, tally: _Tally, config: Model, samples: Sequence[SampleLengths], any_clean: bool) -> None:
        self.tally, self.config, self.samples = tally, config, samples
        self.num_x, self.num_y, self.num_text = (
            sum(getattr(sample, name) for sample in samples) for name in ("x", "y", "text")
        )
        self.num_levels = len(samples) + any_clean
        self.width, self.hidden = config.width, int(config.width * config.mlp_ratio)
        self.levels = False
        """Whether the gradient of the embedded levels is needed."""

    def base(
        self, latent_channels: int, text_width: int, heard: Heard | None = None, speech_width: int | None = None
    ) -> None:
        """From latents, text embeddings and sound features to the values of every token of x."""
        config, width, linear = self.config, self.width, self.tally.linear
        patch = config.patch_size**2
        x = linear("base.x_embedder", self.num_x, (2 * latent_channels + 1) * patch, width, False)
        sound = False
        if heard and speech_width:
            pose = [f"pose_condition.{layer}.{part}" for layer in ("conv_1", "conv_2", "join") for part in _BOTH]
            maps = self.tally.trains(*pose)
            x |= linear("pose_embedder", self.num_x, 2 * config.pose_channels * patch, width, maps)
            sound = self._compress(len(heard.frames), speech_width)
        y = self._two("base.text_embedder", self.num_text, text_width, width, False)
        self.levels = self._two("base.sigma_embedding", self.num_levels, _SIGMA_SINUSOIDS, width, False)
        begin, number = x, 0
        for block in range(config.num_dual_blocks):
            x, y = self._dual(f"base.dual_blocks.{block}", x, y)
            x, number = self._listen(number, x, heard, sound), number + 1
        z, lengths = x or y, [sample.x + sample.y for sample in self.samples]
        for block in range(config.num_single_blocks):
            z = self._single(f"base.single_blocks.{block}", z, lengths, config.text_attention_single)
            z, number = self._listen(number, z, heard, sound), number + 1
        if config.num_decoder_blocks:
            z, lengths = z or begin, [2 * sample.x for sample in self.samples]
        for block in range(config.num_decoder_blocks):
            z = self._single(f"base.decoder_blocks.{block}", z, lengths, False)
            z, number = self._listen(number, z, heard, sound), number + 1
        shifted = linear("base.norm_out", self.num_levels, width, 2 * width, self.levels)
        linear("base.proj_out", self.num_x, width, latent_channels * patch, z or shifted)

    def _two(self, name: str, tokens: int, width_in: int, width: int, needs: bool) -> bool:
        needs = self.tally.linear(f"{name}.linear_1", tokens, width_in, width, needs)
        return self.tally.linear(f"{name}.linear_2", tokens, width, width, needs)

    def _compress(self, num_frames: int, speech_width: int) -> bool:
        linear, sound_width = self.tally.linear, self.config.audio_width
        needs = self.tally.trains("audio_condition.layer_weights")
        needs = linear("audio_condition.compress", WINDOW * num_frames, speech_width, sound_width, needs)
        joined = self.config.audio_tokens * sound_width
        return linear("audio_condition.join", num_frames, WINDOW * sound_width, joined, needs)

    def _listen(self, number: int, tokens: bool, heard: Heard | None, sound: bool) -> bool:
        if heard is None:
            return tokens
        name, width, linear = f"audio_attention.{number}", self.width, self.tally.linear
        query = linear(f"{name}.to_q", heard.listeners, width, width, tokens)
        both = linear(f"{name}.to_kv", heard.sound, self.config.audio_width, 2 * width, sound)
        attended = self.tally.attention(width, heard.frames, query, both, both)
        return linear(f"{name}.to_out", heard.listeners, width, width, attended) or tokens

    def _modulation(self, name: str, chunks: int) -> bool:
        return self.tally.linear(f"{name}.linear", self.num_levels, self.width, chunks * self.width, self.levels)

    def _qkv(self, name: str, tokens: int, of_keys: int, needs: bool, keys: bool) -> tuple[bool, bool, bool]:
        """Of queries out of some tokens, of keys and values out of others."""
        linear, width = self.tally.linear, self.width
        query = linear(f"{name}.to_q", tokens, width, width, needs) or self.tally.trains(f"{name}.norm_q.weight")
        key = linear(f"{name}.to_k", of_keys, width, width, keys) or self.tally.trains(f"{name}.norm_k.weight")
        return query, key, linear(f"{name}.to_v", of_keys, width, width, keys)

    def _read_text(self, name: str, asking: bool, text: bool) -> bool:
        runs = [(sample.x, sample.text) for sample in self.samples]
        qkv = self._qkv(name, self.num_x, self.num_text, asking, text)
        attended = self.tally.attention(self.width, runs, *qkv)
        return self.tally.linear(f"{name}.to_out", self.num_x, self.width, self.width, attended)

    def _feed_forward(self, name: str, tokens: int, needs: bool) -> bool:
        needs = self.tally.linear(f"{name}.linear_1", tokens, self.width, self.hidden, needs)
        return self.tally.linear(f"{name}.linear_2", tokens, self.hidden, self.width, needs)

    def _dual(self, name: str, x: bool, y: bool) -> tuple[bool, bool]:
        linear, width = self.tally.linear, self.width
        of_x, of_y = self._modulation(f"{name}.modulation", 6), self._modulation(f"{name}.text_modulation", 6)
        qkv_x = self._qkv(f"{name}.qkv", self.num_x, self.num_x, x or of_x, x or of_x)
        qkv_y = self._qkv(f"{name}.text_qkv", self.num_y, self.num_y, y or of_y, y or of_y)
        runs = [(sample.x + sample.y, sample.x + sample.y) for sample in self.samples]
        query, key, value = (one or other for one, other in zip(qkv_x, qkv_y, strict=True))
        attended = self.tally.attention(width, runs, query, key, value)
        out = linear(f"{name}.to_out", self.num_x, width, width, attended)
        text_out = linear(f"{name}.text_to_out", self.num_y, width, width, attended)
        if self.config.text_attention_dual:
            x |= self._read_text(f"{name}.text_attention", out, y or of_y)
        x, y = x or of_x or out, y or of_y or text_out
        return (
            self._feed_forward(f"{name}.feed_forward", self.num_x, x) or x,
            self._feed_forward(f"{name}.text_feed_forward", self.num_y, y) or y,
        )

    def _single(self, name: str, z: bool, lengths: Sequence[int], text_attention: bool) -> bool:
        linear, width, tokens = self.tally.linear, self.width, sum(lengths)
        normed = self._modulation(f"{name}.modulation", 3) or z
        qkv = self._qkv(f"{name}.qkv", tokens, tokens, normed, normed)
        attended = self.tally.attention(width, [(length, length) for length in lengths], *qkv)
        if text_attention:
            attended |= self._read_text(f"{name}.text_attention", attended, normed)
        hidden = linear(f"{name}.proj_mlp", tokens, width, self.hidden, normed)
        out = linear(f"{name}.proj_out", tokens, width + self.hidden, width, attended or hidden)
        return normed or out


_BOTH = ("weight", "bias")
