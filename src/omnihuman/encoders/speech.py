"""Speech encoders: sound to features at model time. The one here needs no weights."""

from typing import Protocol

import numpy as np
from scipy.fft import dct

from omnihuman.batch import Sound
from omnihuman.errors import UserError

SAMPLE_RATE = 16_000
FEATURE_RATE = 50
"""Features a second of wav2vec2 and of Whisper."""
_HOP = 160
_WINDOW = 400
_NUM_BANDS = 40
_NUM_COSINES = 16


class SpeechEncoder(Protocol):
    """A frozen encoder from 16 kHz sound to the features of all its layers, one vector per layer and video frame.

    The model learns how to weigh the layers, so they are not averaged here.
    """

    name: str
    num_layers: int
    width: int

    def encode(self, sound: Sound, num_frames: int, fps: float) -> np.ndarray:
        """float32 [num_frames, num_layers, width]; frame i describes the sound from i / fps to (i + 1) / fps."""
        ...


class LogMel:
    """Log-mel spectra at 100 Hz, as cosines over the 40 bands; the four columns of one frame are joined to 64 numbers.

    The first cosine is loudness, the next ones the vowel. In the bands themselves loudness makes half of the variance
    and the vowel a twentieth; scaled to about one, each cosine is as loud as the others.
    """

    name = "log_mel"
    num_layers = 1
    columns_per_frame = 4
    width = _NUM_COSINES * columns_per_frame

    def encode(self, sound: Sound, num_frames: int, fps: float) -> np.ndarray:
        """See `SpeechEncoder.encode`. Beyond the end of the sound the features are those of silence."""
        mel = log_mel(sound)
        times = (
            np.arange(num_frames)[:, None] + (np.arange(self.columns_per_frame) + 0.5) / self.columns_per_frame
        ) / fps
        columns = np.minimum((times * SAMPLE_RATE / _HOP).astype(int), len(mel) - 1)
        features = mel[columns]
        features[times * SAMPLE_RATE >= len(sound.samples) + _WINDOW] = mel_of_silence()
        return (features @ _band_cosines()).reshape(num_frames, 1, self.width)


def log_mel(sound: Sound) -> np.ndarray:
    """float32 [columns, 40] at 100 Hz, scaled to about unit variance on speech.

    Raises:
        UserError: the sound is not at 16 kHz.
    """
    check_rate(sound)
    padded = np.pad(sound.samples.astype(np.float32), (_WINDOW // 2, _WINDOW))
    windows = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::_HOP]
    spectrum = np.abs(np.fft.rfft(windows * np.hanning(_WINDOW).astype(np.float32), n=512)) ** 2
    return _compress(spectrum @ _mel_filters().T)


def _band_cosines() -> np.ndarray:
    """float32 [40, 16]: orthonormal cosines over the bands, divided by the deviation that speech has along them."""
    order = np.arange(_NUM_COSINES)
    return (dct(np.eye(_NUM_BANDS), norm="ortho", axis=1)[:, :_NUM_COSINES] * (1 + order) / 5.0).astype(np.float32)


def mel_of_silence() -> np.ndarray:
    """float32 [40]: what digital silence encodes to."""
    return _compress(np.zeros(_NUM_BANDS))


def _compress(power: np.ndarray) -> np.ndarray:
    return ((np.log10(power + 1e-4) + 1.5) / 1.5).astype(np.float32)


def _mel_filters() -> np.ndarray:
    """Triangular filters [40, 257], evenly spaced on the mel scale from 60 to 7600 Hz."""
    to_mel = lambda hertz: 2595.0 * np.log10(1.0 + hertz / 700.0)  # noqa: E731
    edges = 700.0 * (10.0 ** (np.linspace(to_mel(60.0), to_mel(7600.0), _NUM_BANDS + 2) / 2595.0) - 1.0)
    bins = np.linspace(0.0, SAMPLE_RATE / 2, 257)
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    return np.clip(np.minimum(rising, falling), 0.0, None)


def check_rate(sound: Sound) -> None:
    """Raises `UserError` where a sound is not at 16 kHz."""
    if sound.sample_rate != SAMPLE_RATE:
        raise UserError(
            f"sound at {sound.sample_rate} Hz came where {SAMPLE_RATE} Hz is expected: resample it on reading"
        )


def at_video_frames(features: np.ndarray, num_frames: int, fps: float) -> np.ndarray:
    """Features [P, ...] at 50 Hz, interpolated to the middle of each video frame: float32 [num_frames, ...].

    Feature p is taken to describe the moment (p + 0.5) / 50; beyond the last one it stays.
    """
    seconds = (np.arange(num_frames) + 0.5) / fps
    positions = np.clip(seconds * FEATURE_RATE - 0.5, 0, len(features) - 1)
    below = np.floor(positions).astype(int)
    above = np.minimum(below + 1, len(features) - 1)
    share = (positions - below).astype(np.float32).reshape(-1, *[1] * (features.ndim - 1))
    return (1 - share) * features[below] + share * features[above]
