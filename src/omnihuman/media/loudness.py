"""Loudness of sound as people hear it (ITU-R BS.1770), and bringing sound to one loudness."""

import warnings

import numpy as np
import pyloudnorm

from omnihuman.batch import Sound

BLOCK_SECONDS = 0.4
"""BS.1770's blocks; what is shorter is repeated to one."""
SILENCE_LUFS = -60.0
"""Below it a sound is silence: raised to the loudness of speech, its noise would be."""


def loudness(sound: Sound) -> float:
    """Integrated loudness in LUFS; -inf where nothing is heard."""
    if not len(sound.samples):
        return -np.inf
    samples = sound.samples
    if len(samples) < (shortest := int(np.ceil(BLOCK_SECONDS * sound.sample_rate)) + 1):
        samples = np.resize(samples, shortest)
    with warnings.catch_warnings(), np.errstate(all="ignore"):  # blocks of digital silence have the logarithm of zero
        warnings.simplefilter("ignore")
        measured = pyloudnorm.Meter(sound.sample_rate).integrated_loudness(samples.astype(np.float64))
    return float(measured) if np.isfinite(measured) else -np.inf


def at_loudness(sound: Sound, target_lufs: float) -> tuple[Sound, float]:
    """The sound, scaled to a loudness, and the loudness that it had.

    What is below `SILENCE_LUFS` stays as it is. Samples may pass 1: nobody writes this sound.
    """
    measured = loudness(sound)
    if measured < SILENCE_LUFS:
        return sound, measured
    scaled = (sound.samples * 10 ** ((target_lufs - measured) / 20)).astype(np.float32)
    return Sound(scaled, sound.sample_rate), measured
