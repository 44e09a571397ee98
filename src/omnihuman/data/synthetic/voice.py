"""Voices from a pulse train through resonators (formant synthesis), and music for clips in which nobody speaks."""

from dataclasses import dataclass

import cv2
import numpy as np

from omnihuman.batch import Sound

SAMPLE_RATE = 16000
CONTROL_RATE = 400
"""Points a second at which energy and vowels are described."""
CONTROL_STEP = SAMPLE_RATE // CONTROL_RATE
ENVELOPE_SMOOTHING_SECONDS = 0.025
"""Standard deviation; about 60 ms between the half heights."""
VOWEL_SMOOTHING_SECONDS = 0.03
F2_RANGE_HERTZ = (850.0, 2350.0)
THIRD_FORMANT_HERTZ = 2750.0
PERMUTATIONS = 48
"""Orders of vowels tried for the one that is least correlated with loudness."""


@dataclass(frozen=True)
class Voice:
    """What a person's voice sounds like."""

    pitch_hertz: float
    formant_scale: float  # about 1; a shorter vocal tract lies above
    breathiness: float  # share of noise in the source
    syllables_per_second: float


@dataclass(frozen=True)
class Speech:
    """Sound with what the mouth does while it is spoken."""

    sound: Sound
    energy: np.ndarray  # float64 [points at CONTROL_RATE], smoothed envelope, 0..1
    spread: np.ndarray  # float64 [points at CONTROL_RATE], second formant: -1 rounded .. 1 spread, 0 in pauses


@dataclass(frozen=True)
class Syllables:
    """Times in seconds; a pause is a syllable of loudness 0."""

    starts: np.ndarray
    durations: np.ndarray
    loudness: np.ndarray
    spread: np.ndarray  # -1..1, second formant


def draw_voice(rng: np.random.Generator, noun: str) -> Voice:
    """Draws a voice at random, higher for a woman than for a man."""
    high = noun == "woman"
    return Voice(
        pitch_hertz=float(rng.uniform(170, 250) if high else rng.uniform(85, 145)),
        formant_scale=float(rng.uniform(1.06, 1.16) if high else rng.uniform(0.94, 1.04)),
        breathiness=float(rng.uniform(0.02, 0.12)),
        syllables_per_second=float(rng.uniform(3.6, 4.8)),
    )


def speak(rng: np.random.Generator, voice: Voice, seconds: float) -> Speech:
    """Babbles for a while; loudness and vowels are drawn independently of each other."""
    syllables = _draw_syllables(rng, voice, seconds)
    samples = np.zeros(round(seconds * SAMPLE_RATE))
    spread = np.zeros(len(samples) // CONTROL_STEP)
    for start, duration, loudness, vowel in zip(
        syllables.starts, syllables.durations, syllables.loudness, syllables.spread, strict=True
    ):
        first = round(start * SAMPLE_RATE)
        piece = _syllable(rng, voice, duration, vowel) * loudness
        length = min(len(piece), len(samples) - first)
        samples[first : first + length] += piece[:length]
        spread[first // CONTROL_STEP : (first + length) // CONTROL_STEP] = vowel if loudness else 0.0
    spread = smoothed(spread, VOWEL_SMOOTHING_SECONDS)
    energy = envelope(samples)
    samples = 0.45 * samples / (np.abs(samples).max() + 1e-9) + rng.normal(0, 4e-4, len(samples))
    return Speech(Sound(samples.astype(np.float32), SAMPLE_RATE), energy, spread)


def smoothed(values: np.ndarray, deviation_seconds: float, rate: float = CONTROL_RATE) -> np.ndarray:
    """Values [points] at `rate` after a Gaussian filter."""
    return cv2.GaussianBlur(values[None], (0, 0), deviation_seconds * rate)[0]


def envelope(samples: np.ndarray) -> np.ndarray:
    """Smoothed loudness at CONTROL_RATE of a signal at SAMPLE_RATE, about 1 at the loudest."""
    num_points = len(samples) // CONTROL_STEP
    power = np.square(samples[: num_points * CONTROL_STEP], dtype=np.float64).reshape(-1, CONTROL_STEP).mean(axis=1)
    loudness = np.sqrt(smoothed(power, ENVELOPE_SMOOTHING_SECONDS))
    return np.clip(loudness / (np.quantile(loudness, 0.98) + 1e-9), 0, 1)


def _draw_syllables(rng: np.random.Generator, voice: Voice, seconds: float) -> Syllables:
    mean = 0.87 / voice.syllables_per_second
    num = int(np.ceil(seconds / mean * 1.4)) + 4
    durations = mean * rng.uniform(0.75, 1.25, num)
    loudness = rng.uniform(0.3, 1.0, num)
    pauses = rng.random(num) < 0.13
    durations[pauses] *= rng.uniform(0.8, 1.8, pauses.sum())
    loudness[pauses] = 0
    starts = np.cumsum(durations) - durations
    kept = starts < seconds - 0.03
    starts, durations, loudness = starts[kept], durations[kept], loudness[kept]
    spoken = np.flatnonzero(loudness)
    spread = np.zeros(len(starts))
    # Short clips would correlate by chance; evenly spread vowels in the best of many orders do not.
    levels = np.linspace(-1, 1, len(spoken)) + rng.uniform(-0.1, 0.1, len(spoken))
    orders = [rng.permutation(levels) for _ in range(PERMUTATIONS)]
    centred = loudness[spoken] - loudness[spoken].mean()
    spread[spoken] = min(orders, key=lambda order: abs(order @ centred))
    return Syllables(starts, durations, loudness, np.clip(spread, -1, 1))


def _syllable(rng: np.random.Generator, voice: Voice, duration: float, spread: float) -> np.ndarray:
    """Consonant and vowel of unit loudness."""
    num = round(duration * SAMPLE_RATE)
    onset = round(min(rng.uniform(0.03, 0.07), duration / 3) * SAMPLE_RATE)
    low, high = F2_RANGE_HERTZ
    f2 = low * (high / low) ** ((spread + 1) / 2)
    f1 = rng.uniform(300, 760)
    time = np.arange(num - onset) / SAMPLE_RATE
    pitch = voice.pitch_hertz * (1 + rng.uniform(-0.08, 0.08) - 0.12 * time / duration)
    phase = np.cumsum(pitch) / SAMPLE_RATE + rng.random()
    source = np.diff(np.floor(phase), prepend=np.floor(phase[0])) - pitch / SAMPLE_RATE
    source = source + voice.breathiness * rng.normal(0, 0.1, len(source))
    vowel = _resonate(source, [f1, f2, THIRD_FORMANT_HERTZ], voice.formant_scale)
    vowel /= np.sqrt(np.mean(np.square(vowel))) + 1e-9
    vowel *= np.minimum(1, np.minimum(time / 0.03, (time[-1] - time) / 0.05))
    consonant = np.zeros(onset)
    if rng.random() < 0.5:
        noise = np.diff(rng.normal(0, 1, onset + 1))
        consonant = 0.09 * noise * np.hanning(onset)
    return np.concatenate([consonant, vowel])


def _resonate(source: np.ndarray, formants_hertz: list[float], scale: float) -> np.ndarray:
    """Cascade of two-pole resonators with unit gain at 0 Hz, applied to the spectrum."""
    num_padded = 2 * len(source)
    delay = np.exp(-2j * np.pi * np.fft.rfftfreq(num_padded))
    spectrum = np.fft.rfft(source, num_padded)
    for index, formant in enumerate(formants_hertz):
        frequency = min(formant * scale, 0.45 * SAMPLE_RATE)
        radius = np.exp(-np.pi * (70 + 40 * index) / SAMPLE_RATE)
        first, second = -2 * radius * np.cos(2 * np.pi * frequency / SAMPLE_RATE), radius**2
        spectrum *= (1 + first + second) / (1 + first * delay + second * delay**2)
    return np.fft.irfft(spectrum, num_padded)[: len(source)]


def play_music(rng: np.random.Generator, seconds: float) -> Sound:
    """Plucked notes of a pentatonic scale over a held chord."""
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    root = rng.uniform(110, 180)
    samples = 0.12 * sum(np.sin(2 * np.pi * root * ratio * time) for ratio in (1, 1.25, 1.5))
    beat = rng.uniform(0.2, 0.34)
    for start in np.arange(0, seconds, beat):
        pitch = root * 2 * rng.choice([1, 9 / 8, 5 / 4, 3 / 2, 5 / 3, 2])
        since = np.maximum(time - start, 0)
        note = np.exp(-since / 0.25) * np.minimum(since / 0.01, 1)
        samples = samples + 0.3 * note * (np.sin(2 * np.pi * pitch * since) + 0.3 * np.sin(4 * np.pi * pitch * since))
    return Sound((0.4 * samples / np.abs(samples).max()).astype(np.float32), SAMPLE_RATE)
