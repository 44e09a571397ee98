"""Whether somebody speaks."""

import numpy as np

from omnihuman.batch import Sound
from omnihuman.data.scorers.content import ClipContent, Measurement, Scorer, measured, not_applicable

WINDOW_SECONDS = 0.032
HOP_SECONDS = 0.010
SPEECH_BAND_HERTZ = (100.0, 4000.0)
QUIET_DECIBELS = -55.0
"""Mean level in the speech band, against full scale, below which nothing can be heard."""
LOUD_DECIBELS = -40.0
SYLLABLES_HERTZ = (1.5, 9.0)


def measure_speech_presence(content: ClipContent) -> tuple[Measurement, ...]:
    """0..1: loud enough, times modulated as syllables are, times tonal; music and noise lack the second or third."""
    if content.sound is None or not len(content.sound.samples):
        return not_applicable(("speech_presence",), "there is no sound track")
    power, band = _spectrogram(content.sound)
    if len(power) < 20:
        return not_applicable(("speech_presence",), "the sound is shorter than a syllable")
    level = power[:, band].sum(axis=1)
    decibels = 10 * np.log10(np.percentile(level, 80) + 1e-12)
    loud = _ramp(decibels, QUIET_DECIBELS, LOUD_DECIBELS)
    voiced = _ramp(-np.log10(_flatness(power[level >= np.median(level)][:, band])), 0.15, 0.6)
    value = loud * voiced * _ramp(_modulation(level), 0.15, 0.45)
    return (measured("speech_presence", value, len(power)),)


def _spectrogram(sound: Sound) -> tuple[np.ndarray, np.ndarray]:
    """Power [windows, bins] against a full-scale sine, and the bins of the speech band."""
    size, hop = round(WINDOW_SECONDS * sound.sample_rate), round(HOP_SECONDS * sound.sample_rate)
    if len(sound.samples) < size:
        return np.zeros((0, 0)), np.zeros(0, bool)
    windows = np.lib.stride_tricks.sliding_window_view(sound.samples, size)[::hop]
    taper = np.hanning(size).astype(np.float32)
    power = np.abs(np.fft.rfft(windows * taper, axis=1)) ** 2 * (4 / taper.sum() ** 2)
    hertz = np.fft.rfftfreq(size, 1 / sound.sample_rate)
    return power, (hertz >= SPEECH_BAND_HERTZ[0]) & (hertz <= SPEECH_BAND_HERTZ[1])


def _flatness(power: np.ndarray) -> float:
    """Geometric over arithmetic mean of the spectrum, median over windows: 0.56 for white noise, low for a voice."""
    power = power + 1e-12
    return float(np.median(np.exp(np.log(power).mean(axis=1)) / power.mean(axis=1)))


def _modulation(level: np.ndarray) -> float:
    """Share of the amplitude's changes that happen at the rate of syllables, weighted by their depth; about 0..1."""
    amplitude = np.sqrt(level)
    depth = amplitude.std() / (amplitude.mean() + 1e-9)
    spectrum = np.abs(np.fft.rfft((amplitude - amplitude.mean()) * np.hanning(len(amplitude)))) ** 2
    hertz = np.fft.rfftfreq(len(amplitude), HOP_SECONDS)
    syllables = (hertz >= SYLLABLES_HERTZ[0]) & (hertz <= SYLLABLES_HERTZ[1])
    return float(min(1.0, 1.5 * depth) * spectrum[syllables].sum() / (spectrum[hertz >= 0.5].sum() + 1e-12))


def _ramp(value: float, low: float, high: float) -> float:
    return float(np.clip((value - low) / (high - low), 0, 1))


SPEECH_PRESENCE = Scorer(("speech_presence",), measure_speech_presence, "1")
