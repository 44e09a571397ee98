"""What the mouth should follow, measured from the sound alone, one number per video frame."""

import numpy as np

from omnihuman.encoders.speech import SAMPLE_RATE

_ROUNDED_BAND_HERTZ = (800.0, 1200.0)
_SPREAD_BAND_HERTZ = (1800.0, 2600.0)
_VOICED_SHARE = 0.1
"""A frame counts as voiced above this share of the clip's loudest frame."""


def frame_windows(samples: np.ndarray, num_frames: int, fps: float) -> np.ndarray:
    """Sound around each frame's moment [F, samples per frame], zeros beyond the ends."""
    length = round(SAMPLE_RATE / fps)
    padded = np.pad(samples.astype(np.float64), (length // 2, 2 * length))
    starts = np.minimum((np.arange(num_frames) * SAMPLE_RATE / fps).astype(int), len(padded) - length)
    return padded[starts[:, None] + np.arange(length)]


def envelope(samples: np.ndarray, num_frames: int, fps: float) -> np.ndarray:
    """Root mean square [F] of the sound: what the mouth's opening follows."""
    return np.sqrt((frame_windows(samples, num_frames, fps) ** 2).mean(axis=1))


def vowel_spread(samples: np.ndarray, num_frames: int, fps: float) -> np.ndarray:
    """Log ratio [F] of a high to a low second-formant band: what the mouth's width follows, whatever the loudness.

    Frames that are not voiced carry the mean of the voiced ones, so that they add nothing to a correlation.
    """
    windows = frame_windows(samples, num_frames, fps)
    spectrum = np.abs(np.fft.rfft(windows * np.hanning(windows.shape[1]), axis=1)) ** 2
    hertz = np.fft.rfftfreq(windows.shape[1], 1 / SAMPLE_RATE)
    low, high = (
        spectrum[:, (hertz >= band[0]) & (hertz < band[1])].sum(axis=1) + 1e-9
        for band in (_ROUNDED_BAND_HERTZ, _SPREAD_BAND_HERTZ)
    )
    ratio = np.log(high / low)
    loudness = np.sqrt((windows**2).mean(axis=1))
    voiced = loudness > _VOICED_SHARE * max(loudness.max(), 1e-9)
    if not voiced.any():
        return np.zeros(num_frames)
    return np.where(voiced, ratio, ratio[voiced].mean())
