"""Whether the mouth moves with the sound, without weights: a stand-in for SyncNet.

The opening of the mouth is read off the pixels as the darkness below the nose, and compared with the loudness of the
sound over lags. Both are high-passed, because pauses and drifts agree at many lags.
"""

import numpy as np

from omnihuman.batch import Sound
from omnihuman.data.scorers.content import ClipContent, Measurement, Scorer, measured, not_applicable
from omnihuman.data.scorers.face import FaceTrack, upright_patch

NAMES = ("lip_sync", "lip_sync_offset_frames")
MAX_LAG_FRAMES = 15
SYNC_LAG_FRAMES = 2
"""Lags up to this count as in step."""
PATCH_SIDE = 24
PATCH_IN_EYE_DISTANCES = 1.3
DARK_SHARE = 0.6
"""Inside of a mouth: darker than this share of the region's median luma."""
NOSTRIL_ROWS = 4
"""Rows at the top of the patch that may hold the nostrils."""
DRIFT_FRAMES = 9
"""Half width of the window whose mean is taken away from both signals; syllables are shorter."""
NOISE_FLOOR = 0.02
"""Of the loudest moment; below it the sound counts as silent."""
MIN_SPREAD = 0.05
"""Correlations at other lags are never taken to vary less than this, or tiny ones would look certain."""


def measure_lip_sync(content: ClipContent) -> tuple[Measurement, ...]:
    """How far the correlation near lag 0 stands out, see `confidence`; and the lag of the highest peak.

    A positive offset, in frames, means that the sound leads the picture, as SyncNet's does.
    """
    if reason := hindrance(content, 2 * MAX_LAG_FRAMES):
        return not_applicable(NAMES, reason)
    assert content.sound is not None
    num_frames = len(content.grey)
    opening = mouth_opening(content)
    loudness = sound_envelope(content.sound, num_frames, content.fps)
    correlations = lagged_correlations(without_drift(opening), without_drift(loudness))
    if not correlations.any():
        return standing_still(num_frames)
    value, offset = confidence(correlations)
    return measured(NAMES[0], value, num_frames), measured(NAMES[1], offset, num_frames)


def hindrance(content: ClipContent, least_frames: int) -> str:
    """Why mouth and sound of this clip cannot be compared, empty where they can."""
    if content.sound is None or not len(content.sound.samples):
        return "there is no sound track"
    if not content.face.found.any():
        return "no face was found"
    num_frames = len(content.grey)
    return f"it needs {least_frames} frames, this clip has {num_frames}" if num_frames < least_frames else ""


def standing_still(num_frames: int) -> tuple[Measurement, ...]:
    """The answer where mouth or sound do not change."""
    unknown = not_applicable(NAMES[1:], "mouth or sound stand still, so that no lag fits better than another")
    return measured(NAMES[0], 0.0, num_frames), *unknown


def mouth_opening(content: ClipContent) -> np.ndarray:
    """Darkness of the mouth's inside, float64 [F], in no unit."""
    luma = _mouth_patches(content.grey, content.face)[:, NOSTRIL_ROWS:].astype(np.float64)
    inside = np.clip(DARK_SHARE * np.median(luma) - luma, 0, None)
    return inside.mean(axis=(1, 2))


def sound_envelope(sound: Sound, num_frames: int, fps: float) -> np.ndarray:
    """Loudness at every frame, float64 [F], as the logarithm of the amplitude."""
    energy = np.concatenate([[0.0], np.cumsum(sound.samples.astype(np.float64) ** 2)])
    middles = (np.arange(num_frames) + 0.25) / fps
    edges = np.stack([middles - 0.75 / fps, middles + 0.75 / fps]) * sound.sample_rate
    first, last = np.clip(edges, 0, len(sound.samples)).astype(int)
    amplitude = np.sqrt((energy[last] - energy[first]) / np.maximum(last - first, 1))
    return np.log(amplitude + NOISE_FLOOR * amplitude.max() + 1e-6)


def lagged_correlations(opening: np.ndarray, loudness: np.ndarray) -> np.ndarray:
    """Correlation of what overlaps at the lags -15..15, float64 [31]; at a positive lag the opening comes later."""
    values = []
    for lag in range(-MAX_LAG_FRAMES, MAX_LAG_FRAMES + 1):
        a = opening[max(0, lag) : len(opening) + min(0, lag)]
        b = loudness[max(0, -lag) : len(loudness) - max(0, lag)]
        a, b = a - a.mean(), b - b.mean()
        scale = np.sqrt((a * a).sum() * (b * b).sum())
        values.append((a * b).sum() / scale if scale > 0 else 0.0)
    return np.array(values)


def confidence(correlations: np.ndarray) -> tuple[float, int]:
    """Peak within +-2 frames against the other lags, and the lag of the highest peak.

    The contrast, in standard deviations of the other lags, is multiplied by the root of the peak: a swapped sound may
    stand out by chance, but correlates weakly when it does.
    """
    lags = np.arange(-MAX_LAG_FRAMES, MAX_LAG_FRAMES + 1)
    near = np.abs(lags) <= SYNC_LAG_FRAMES
    others = correlations[~near]
    peak = correlations[near].max()
    contrast = (peak - others.mean()) / (others.std() + MIN_SPREAD)
    return float(contrast * np.sqrt(max(0.0, peak))), int(lags[correlations.argmax()])


def _mouth_patches(grey: np.ndarray, face: FaceTrack) -> np.ndarray:
    """The mouth upright and at one size in every frame, uint8 [F, side, side]; a constant size keeps the jaw's drop."""
    scale = PATCH_IN_EYE_DISTANCES * float(np.median(face.eye_distance[face.found])) / PATCH_SIDE
    patches = []
    for picture, centre, roll in zip(grey, face.mouth, face.roll, strict=True):
        turn = scale * np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]])
        patches.append(upright_patch(picture, turn, centre, (PATCH_SIDE, PATCH_SIDE)))
    return np.stack(patches)


def without_drift(signals: np.ndarray) -> np.ndarray:
    """Each signal of [F] or [F, N] less its mean over a window longer than a syllable."""
    window = np.hanning(2 * DRIFT_FRAMES + 3)[1:-1]
    padded = np.pad(signals, [(DRIFT_FRAMES, DRIFT_FRAMES)] + [(0, 0)] * (signals.ndim - 1), mode="reflect")
    return signals - np.apply_along_axis(lambda signal: np.convolve(signal, window / window.sum(), "valid"), 0, padded)


LIP_SYNC = Scorer(NAMES, measure_lip_sync, "1")
