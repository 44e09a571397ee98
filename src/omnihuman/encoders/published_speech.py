"""Published speech encoders: wav2vec2, the paper's acoustic encoder (OmniHuman-1, sec. 3.2), and Whisper.

Both give the hidden states of all layers at 50 Hz, of which the first is the input of the transformer.
"""

import json
from typing import Any

import numpy as np
import torch

from omnihuman.batch import Sound
from omnihuman.encoders.speech import FEATURE_RATE, SAMPLE_RATE, at_video_frames, check_rate
from omnihuman.encoders.weights import (
    LocalWeights,
    Published,
    check_loaded,
    check_sha256,
    find_weights,
    not_loaded,
    quiet_loading,
)
from omnihuman.errors import UserError

WAV2VEC2 = Published(
    "encode.speech_weights", "facebook/wav2vec2-base-960h", "Apache-2.0", "encode.speech_encoder=log_mel"
)
WHISPER = Published(
    "encode.speech_weights",
    "openai/whisper-base",
    "Apache-2.0 by its model card, the code's repository says MIT",
    "encode.speech_encoder=log_mel",
)
STEP = SAMPLE_RATE // FEATURE_RATE
"""Samples from one feature to the next."""
WINDOW_SECONDS = 20.0
"""Of sound in one pass of wav2vec2, whose attention takes memory quadratic in it."""
CONTEXT_SECONDS = 1.0
"""Of sound on either side of such a window; its features are dropped."""


class Wav2Vec2:
    """All hidden states of a wav2vec2 model. Sounds over 22 s pass in windows of 20 s with a second around each.

    A window hears only itself and its context, and the group norm of the base model takes its statistics from it, so a
    long sound's features are near those of one pass, not equal to them.
    """

    name = "wav2vec2"

    def __init__(
        self,
        weights: str,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        expected_sha256: str = "",
        window_seconds: float = WINDOW_SECONDS,
    ) -> None:
        """Loads the network.

        Args:
            weights: folder or hub id.
            expected_sha256: of the files, where the data were encoded before.

        Raises:
            UserError: the weights are missing, incomplete, only pickles, or of another family.
        """
        from transformers import Wav2Vec2Model

        self.weights = _checked(weights, WAV2VEC2, "wav2vec2", expected_sha256)
        # Only training masks spans of the input, so fine-tuned checkpoints may leave that vector out.
        self._network = _load(Wav2Vec2Model, self.weights, dtype, device, ("masked_spec_embed",))
        self._receptive_field = _receptive_field(self._network.config)
        self._normalise = _normalises(self.weights)
        self._window = round(window_seconds * FEATURE_RATE)
        self.num_layers = int(self._network.config.num_hidden_layers) + 1
        self.width = int(self._network.config.hidden_size)

    def encode(self, sound: Sound, num_frames: int, fps: float) -> np.ndarray:
        """See `SpeechEncoder.encode`."""
        check_rate(sound)
        samples = sound.samples.astype(np.float32)
        if self._normalise and len(samples):  # over the whole sound, as the model's own feature extractor does
            samples = (samples - samples.mean()) / np.sqrt(samples.var() + 1e-7)
        needed = max(len(samples), round(num_frames / fps * SAMPLE_RATE), 2 * self._receptive_field)
        samples = np.pad(samples, (0, needed - len(samples)))
        return at_video_frames(self._features(samples), num_frames, fps)

    def _features(self, samples: np.ndarray) -> np.ndarray:
        """float32 [P, layers, width]."""
        total = (len(samples) - self._receptive_field) // STEP + 1
        context = round(CONTEXT_SECONDS * FEATURE_RATE)
        if total <= self._window + 2 * context:
            return self._states(samples)
        parts = []
        for first in range(0, total, self._window):
            last = min(first + self._window, total)
            begin, end = max(0, first - context), min(total, last + context)
            states = self._states(samples[begin * STEP : (end - 1) * STEP + self._receptive_field])
            parts.append(states[first - begin : last - begin])
        return np.concatenate(parts)

    def _states(self, samples: np.ndarray) -> np.ndarray:
        tensor = torch.from_numpy(samples)[None].to(self._network.device, self._network.dtype)
        with torch.inference_mode():
            states = self._network(tensor, output_hidden_states=True).hidden_states
        return torch.cat(states).transpose(0, 1).float().cpu().numpy()


class Whisper:
    """All hidden states of Whisper's encoder, which hears windows of 30 s; longer sounds pass in consecutive ones."""

    name = "whisper"

    def __init__(
        self,
        weights: str,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        expected_sha256: str = "",
    ) -> None:
        """Loads the network; arguments and errors as for `Wav2Vec2`."""
        from transformers import WhisperFeatureExtractor, WhisperModel

        self.weights = _checked(weights, WHISPER, "whisper", expected_sha256)
        if "network/preprocessor_config.json" not in self.weights.files:
            raise UserError(
                f"{self.weights.folder} has no preprocessor_config.json, which says how Whisper hears:"
                f" {WHISPER.remedy()}"
            )
        self._extractor = WhisperFeatureExtractor.from_pretrained(self.weights.folder, local_files_only=True)
        self._network = _load(WhisperModel, self.weights, dtype, device).encoder
        self.num_layers = int(self._network.config.encoder_layers) + 1
        self.width = int(self._network.config.d_model)

    def encode(self, sound: Sound, num_frames: int, fps: float) -> np.ndarray:
        """See `SpeechEncoder.encode`."""
        check_rate(sound)
        window = self._extractor.n_samples
        needed = max(len(sound.samples), round(num_frames / fps * SAMPLE_RATE), 1)
        samples = np.pad(sound.samples.astype(np.float32), (0, needed - len(sound.samples)))
        parts = [self._states(samples[start : start + window]) for start in range(0, needed, window)]
        return at_video_frames(np.concatenate(parts), num_frames, fps)

    def _states(self, samples: np.ndarray) -> np.ndarray:
        """float32 [P, layers, width] of one window; the padding to its 30 s is left out again."""
        mel = self._extractor(samples, sampling_rate=SAMPLE_RATE, return_tensors="pt").input_features
        with torch.inference_mode():
            network = self._network
            states = network(mel.to(network.device, network.dtype), output_hidden_states=True).hidden_states
        return torch.cat(states).transpose(0, 1)[: -(-len(samples) // STEP)].float().cpu().numpy()


def _checked(weights: str, published: Published, kind: str, expected_sha256: str) -> LocalWeights:
    files = find_weights(weights, published)
    check_sha256(files, expected_sha256, published)
    if (found := files.config().get("model_type")) != kind:
        raise UserError(
            f"encode.speech_encoder={kind}: {files.folder} holds a model of type {found}: {published.remedy()}"
        )
    return files


def _load(
    network: Any,
    files: LocalWeights,
    dtype: torch.dtype,
    device: torch.device | str,
    may_be_missing: tuple[str, ...] = (),
) -> Any:
    quiet_loading()
    try:
        loaded, told = network.from_pretrained(
            files.folder, local_files_only=True, use_safetensors=True, dtype=dtype, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise not_loaded(error, files, network.__name__) from error
    check_loaded(told, files, may_be_missing)
    return loaded.to(device).requires_grad_(False).eval()


def _receptive_field(config: Any) -> int:
    """Samples behind one feature.

    Raises:
        UserError: the convolutions do not step by 320 samples, which is 50 Hz.
    """
    field, step = 1, 1
    for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
        field, step = field + (kernel - 1) * step, step * stride
    if step != STEP:
        raise UserError(
            f"a wav2vec2 with a feature every {step} samples came, expected {STEP} (50 Hz): {WAV2VEC2.remedy()}"
        )
    return field


def _normalises(files: LocalWeights) -> bool:
    """Whether the model was trained on sound of zero mean and unit variance; all published ones were."""
    path = files.files.get("network/preprocessor_config.json")
    return bool(json.loads(path.read_text(encoding="utf-8")).get("do_normalize", True)) if path else True
