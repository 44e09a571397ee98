"""What tells a copy of a take from another take: how a coarse picture changes, and marks in the sound's spectrogram.

Both outlast encoding anew, another size, a slight crop and another start. Pictures are block means at a fixed rate of
time; marks are triples of spectral peaks (after Wang, 2003), of which those with the smallest hashes are kept: wherever
a copy starts, it keeps largely the same ones (bottom-k sketch, Broder, 1997).
"""

from dataclasses import dataclass

import cv2
import numpy as np

from omnihuman.batch import Sound

GRID = 8
"""Blocks a side."""
FRAMES_PER_STEP = 3
"""Frames at 25 a second that make one coarse picture."""
NUM_MARKS = 32
"""Marks kept of a clip."""
_WINDOW, _HOP = 1024, 128
_BAND = slice(16, 232)
"""Bins of 16 kHz sound in windows of 64 ms: 250 to 3600 Hz, which every codec keeps."""
_NEIGHBOURHOOD = (9, 17)
"""Bins and hops in which a peak is the highest."""
_FLOOR = 10**-2.5
"""Of the highest amplitude; lower peaks are noise."""
_AUDIBLE = 1e-3
_FOLLOWERS = 4
"""Peaks after one with which it makes triples."""
_MAX_HOPS = 127
_HOPS_PER_STEP = 4
"""Intervals are rounded down to 32 ms, so that another start seldom changes one."""


@dataclass(frozen=True)
class Fingerprint:
    """Of one clip."""

    pictures: np.ndarray  # uint8 [steps, GRID * GRID]
    marks: np.ndarray  # uint32 [marks], ascending; none without sound

    def to_bytes(self) -> bytes:
        """The number of steps, the pictures, the marks."""
        return np.uint32(len(self.pictures)).tobytes() + self.pictures.tobytes() + self.marks.tobytes()

    @classmethod
    def from_bytes(cls, content: bytes) -> "Fingerprint":
        """Of what `to_bytes` gave."""
        num_steps = int(np.frombuffer(content, np.uint32, 1)[0])
        end = 4 + num_steps * GRID * GRID
        pictures = np.frombuffer(content[4:end], np.uint8).reshape(num_steps, GRID * GRID)
        return cls(pictures, np.frombuffer(content[end:], np.uint32))


def fingerprint(grey: np.ndarray, sound: Sound | None) -> Fingerprint:
    """Of frames at 25 a second.

    Args:
        grey: uint8 [F, H, W].
        sound: of the same span.
    """
    small = np.stack([cv2.resize(picture, (GRID, GRID), interpolation=cv2.INTER_AREA) for picture in grey])
    num_steps = max(1, len(small) // FRAMES_PER_STEP)
    steps = small[: num_steps * FRAMES_PER_STEP].reshape(num_steps, -1, GRID * GRID).mean(axis=1)
    return Fingerprint(np.round(steps).astype(np.uint8), marks(sound))


def marks(sound: Sound | None) -> np.ndarray:
    """The smallest hashes of triples of peaks, uint32 [at most NUM_MARKS], ascending."""
    if sound is None or len(sound.samples) < _WINDOW or np.abs(sound.samples).max() < _AUDIBLE:
        return np.zeros(0, np.uint32)
    hops, bins = _peaks(sound.samples)
    triples = []
    for i in range(1, _FOLLOWERS):
        for j in range(i + 1, _FOLLOWERS + 1):
            first, second, third = slice(0, -j), slice(i, len(hops) - j + i), slice(j, None)
            between, after = hops[second] - hops[first], hops[third] - hops[second]
            near = (between <= _MAX_HOPS) & (after <= _MAX_HOPS)
            pitch = (bins[first] // 2 << 14) | (bins[second] // 2 << 7) | bins[third] // 2
            triples.append(((pitch << 10) | (between // _HOPS_PER_STEP << 5) | after // _HOPS_PER_STEP)[near])
    return np.unique(_mixed(np.concatenate(triples)))[:NUM_MARKS]


def _peaks(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hop and bin of each peak of the spectrogram, in the order of time."""
    windows = np.lib.stride_tricks.sliding_window_view(samples, _WINDOW)[::_HOP]
    levels = np.abs(np.fft.rfft(windows * np.hanning(_WINDOW).astype(np.float32), axis=1))[:, _BAND].astype(np.float32)
    highest = cv2.dilate(levels, np.ones(_NEIGHBOURHOOD[::-1], np.uint8))
    hops, bins = np.nonzero((levels >= highest) & (levels > _FLOOR * levels.max()))
    return hops.astype(np.int64), bins.astype(np.int64)


def _mixed(values: np.ndarray) -> np.ndarray:
    """Hashes, uint32, so that the smallest are a random choice (the finaliser of splitmix64)."""
    mixed = values.astype(np.uint64)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (mixed >> np.uint64(32)).astype(np.uint32)
