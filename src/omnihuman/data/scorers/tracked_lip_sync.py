"""Whether the mouth moves with the sound, without weights, for real people: the second stand-in for SyncNet.

Four signals of the steadied mouth (darkness of its inside, height and width as the flow of its parts added up, redness)
are compared with three bands of the sound at every lag by regularised canonical correlation. Which signal goes with
which band, and its sign, is found in the clip itself, so that beards, teeth, a low voice or music that covers one band
do no harm; the same freedom at all lags makes the other lags the null. Bands, not loudness alone, because open vowels
move energy between bands while music keeps the loudness up.
"""

from itertools import pairwise

import cv2
import numpy as np

from omnihuman.batch import Sound
from omnihuman.data.scorers.content import ClipContent, Measurement, Scorer, measured, not_applicable
from omnihuman.data.scorers.lip_sync import MAX_LAG_FRAMES, NAMES, hindrance, standing_still, without_drift
from omnihuman.data.scorers.mouth_track import HEIGHT, WIDTH, mouth_patches

NEAR_FRAMES = 3
"""Lags up to this count as in step; the next one on either side counts neither way."""
RIDGE = 0.3
"""Added to the correlations of a signal with itself: a few seconds do not tell seven signals apart."""
MIN_SPREAD = 0.05
BAND_EDGES = (0, 5, 14, 20)
"""Low, middle (first formants of open vowels) and high (hisses), among 20 mel bands of 80 to 6000 Hz."""
MEL_RANGE_HERTZ = (80.0, 6000.0)
WINDOW_SECONDS, STEP_SECONDS, SPECTRUM_POINTS = 0.025, 0.010, 512


def measure_tracked_lip_sync(content: ClipContent) -> tuple[Measurement, ...]:
    """How many standard deviations the best of the lags near 0 stands above the others; and the best lag of all.

    A positive offset, in frames, means that the sound leads the picture, as SyncNet's does.
    """
    if reason := hindrance(content, 3 * MAX_LAG_FRAMES):
        return not_applicable(NAMES, reason)
    assert content.sound is not None
    num_frames = len(content.grey)
    mouth = without_drift(mouth_signals(mouth_patches(content.frames.pixels, content.grey, content.face)))
    sound = without_drift(sound_bands(content.sound, num_frames, content.fps))
    if not (mouth.std(axis=0) > 1e-6).any() or not (sound.std(axis=0) > 1e-6).any():
        return standing_still(num_frames)
    value, offset = stand_out(canonical_correlations(mouth, sound))
    return measured(NAMES[0], value, num_frames), measured(NAMES[1], offset, num_frames)


def mouth_signals(patches: np.ndarray) -> np.ndarray:
    """Darkness, height, width and redness, in no unit, float64 [F, 4]; `patches` as of `mouth_patches`."""
    grey = np.stack([cv2.GaussianBlur(cv2.cvtColor(patch, cv2.COLOR_RGB2GRAY), (0, 0), 1) for patch in patches])
    rows, columns = slice(HEIGHT // 5, 4 * HEIGHT // 5), slice(WIDTH // 4, 3 * WIDTH // 4)
    lips = grey[:, rows, columns].astype(np.float64)
    darkness = np.clip(np.percentile(lips, 20) - lips, 0, None).mean(axis=(1, 2))
    colour = patches[:, rows, columns].astype(np.float64)
    redness = (colour[..., 0] - colour[..., 1:].mean(axis=-1)) / (colour.sum(axis=-1) + 30)
    height, width = _opening(grey, columns)
    return np.stack([darkness, height, width, redness.mean(axis=(1, 2))], axis=1)


def _opening(grey: np.ndarray, columns: slice) -> tuple[np.ndarray, np.ndarray]:
    """Flow of chin against nose and of the corners against each other, added up over time; each [F]."""
    flow_of = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    eighth, middle = HEIGHT // 8, slice(3 * HEIGHT // 10, 7 * HEIGHT // 10)
    sides = slice(WIDTH * 15 // 100, WIDTH * 4 // 10), slice(WIDTH * 6 // 10, WIDTH * 85 // 100)
    steps = [(0.0, 0.0)]
    for before, after in pairwise(grey):
        flow = flow_of.calc(before, after, None)  # pyright: ignore[reportArgumentType,reportCallIssue] (stub: no None)
        down = flow[5 * eighth : 7 * eighth, columns, 1].mean() - flow[eighth : 3 * eighth, columns, 1].mean()
        apart = flow[middle, sides[1], 0].mean() - flow[middle, sides[0], 0].mean()
        steps.append((float(down), float(apart)))
    height, width = np.cumsum(steps, axis=0).T
    return height, width


def sound_bands(sound: Sound, num_frames: int, fps: float) -> np.ndarray:
    """Logarithm of the energy in three bands at every frame, float64 [F, 3]."""
    size, rate = round(WINDOW_SECONDS * sound.sample_rate), sound.sample_rate
    padded = np.pad(sound.samples.astype(np.float64), (size, size + round(rate / fps)))
    power = np.zeros((num_frames, SPECTRUM_POINTS // 2 + 1))
    # Four steps around the moment of the frame, from a step before it to two after.
    for step in (-1, 0, 1, 2):
        first = np.round((np.arange(num_frames) / fps + step * STEP_SECONDS) * rate + size / 2).astype(int)
        first = np.clip(first, 0, len(padded) - size)
        windows = padded[first[:, None] + np.arange(size)] * np.hamming(size)
        power += np.abs(np.fft.rfft(windows, SPECTRUM_POINTS, axis=1)) ** 2
    energy = power @ _mel_bank(rate).T
    logarithm = np.log(energy + 1e-4 * energy.mean() + 1e-9)
    return np.stack([logarithm[:, a:b].mean(axis=1) for a, b in pairwise(BAND_EDGES)], axis=1)


def canonical_correlations(mouth: np.ndarray, sound: np.ndarray) -> np.ndarray:
    """Root of the summed squares of all canonical correlations at the lags -15..15, float64 [31].

    Args:
        mouth: [F, signals]; at a positive lag it comes later.
        sound: [F, bands].
    """
    values = []
    for lag in range(-MAX_LAG_FRAMES, MAX_LAG_FRAMES + 1):
        a = _standard(mouth[max(0, lag) : len(mouth) + min(0, lag)])
        b = _standard(sound[max(0, -lag) : len(sound) - max(0, lag)])
        own_a, own_b = (each.T @ each / len(each) + RIDGE * np.eye(each.shape[1]) for each in (a, b))
        cross = a.T @ b / len(a)
        squares = np.trace(np.linalg.solve(own_a, cross) @ np.linalg.solve(own_b, cross.T))
        values.append(np.sqrt(max(0.0, squares)))
    return np.array(values)


def stand_out(correlations: np.ndarray) -> tuple[float, int]:
    """Peak near lag 0 against the other lags in standard deviations of those, and the lag of the highest peak."""
    lags = np.arange(-MAX_LAG_FRAMES, MAX_LAG_FRAMES + 1)
    others = correlations[np.abs(lags) > NEAR_FRAMES + 1]
    peak = correlations[np.abs(lags) <= NEAR_FRAMES].max()
    return float((peak - others.mean()) / (others.std() + MIN_SPREAD)), int(lags[correlations.argmax()])


def _standard(signals: np.ndarray) -> np.ndarray:
    centred = signals - signals.mean(axis=0)
    return centred / (centred.std(axis=0) + 1e-9)


def _mel_bank(sample_rate: int) -> np.ndarray:
    """Triangles, float64 [20, bins]."""
    low, high = (2595 * np.log10(1 + hertz / 700) for hertz in MEL_RANGE_HERTZ)
    edges = 700 * (10 ** (np.linspace(low, high, BAND_EDGES[-1] + 2) / 2595) - 1)
    bins = np.fft.rfftfreq(SPECTRUM_POINTS, 1 / sample_rate)
    rising = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    return np.clip(np.minimum(rising, falling), 0, None)


TRACKED_LIP_SYNC = Scorer(NAMES, measure_tracked_lip_sync, "2 tracked")
