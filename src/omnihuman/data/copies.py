"""Which clips are copies of one take, among so many that they cannot be compared pair by pair.

Two ways lead to pairs worth a look: clips whose sounds share marks, and clips that look alike, found in buckets of the
signs of random projections (Charikar, 2002). Buckets are sorted and only neighbours are paired, so that the work grows
with the number of clips. A pair is then held against each other at every offset.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from omnihuman.data.fingerprints import GRID, NUM_MARKS, Fingerprint

NUM_NEIGHBOURS = 8
"""Clips after one in a sorted bucket with which it is paired."""
LEAST_SHARED = 2
"""Marks that make a pair worth a look."""
NUM_COEFFICIENTS = 5
"""Of the mean picture's cosine transform, a side; finer ones change with a crop."""
NUM_TABLES, NUM_BITS = 16, 14
MOST_ALIKE, MOST_ALIKE_MUTE = 2, 48
"""Of the clips that look like one, so many are compared with it, those that also move in the same places; more where
it has no sound, by which a copy would have been found."""
LEAST_ALIKE = 0.8
"""Cosine of mean pictures, each without the corpus's mean, below which nothing is compared."""
SAME_SOUND = 0.1
"""Share of marks: other takes hardly share any."""
SAME_LOOK = 0.9
"""Correlation over blocks."""
SAME_MOTION, SAME_MOTION_AND_SOUND, SAME_MOTION_DUBBED = 0.8, 0.5, 0.92
"""Correlation over time where a sound is missing, where the sounds agree, and where they do not."""
STILL_LEVELS = 0.5
"""Standard deviation over time, of block means, below which a picture does not move."""
LEAST_OVERLAP = 0.5
"""Share of the shorter clip that both must show."""
LEAST_STEPS = 12
"""The same in steps, where a clip has so many: a short drift agrees with any other."""


@dataclass(frozen=True)
class Likeness:
    """Two clips at the offset at which they agree best."""

    look: float  # correlation of the mean pictures, -1..1
    motion: float  # correlation of the changes; NaN where neither moves
    sound: float  # share of marks; NaN where either has none
    offset: int  # steps by which the second begins later in the take

    @property
    def is_copy(self) -> bool:
        """The pictures agree and move alike; how much is asked of the motion depends on what the sounds say."""
        if self.look < SAME_LOOK:
            return False
        if self.sound >= SAME_SOUND:
            return bool(np.isnan(self.motion) or self.motion >= SAME_MOTION_AND_SOUND)
        return self.motion >= (SAME_MOTION if np.isnan(self.sound) else SAME_MOTION_DUBBED)


def groups(prints: Sequence[Fingerprint], videos: Sequence[str]) -> np.ndarray:
    """int64 [clips]: equal numbers for copies of one take.

    Args:
        videos: the video of each clip. The clips of one video lie side by side, so they are not compared.
    """
    video = np.unique(np.asarray(videos, object), return_inverse=True)[1] if len(videos) else np.zeros(0, np.int64)
    pairs = [pair for pair in candidates(prints, video) if compare(prints[pair[0]], prints[pair[1]]).is_copy]
    first, second = np.array(pairs, np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(first), bool), (first, second)), (len(prints), len(prints)))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def candidates(prints: Sequence[Fingerprint], video: np.ndarray) -> np.ndarray:
    """Pairs worth a look, int64 [pairs, 2], the first the smaller."""
    if len(prints) < 2:
        return np.zeros((0, 2), np.int64)
    heard, seen = _sharing_marks(prints), _looking_alike(prints, video)
    pairs = np.unique(np.concatenate([heard, seen]), axis=0)
    return pairs[video[pairs[:, 0]] != video[pairs[:, 1]]]


def compare(first: Fingerprint, second: Fingerprint) -> Likeness:
    """At every offset that leaves enough of both."""
    a, b = first.pictures.astype(np.float32), second.pictures.astype(np.float32)
    shorter = min(len(a), len(b))
    least = min(shorter, max(LEAST_STEPS, int(np.ceil(LEAST_OVERLAP * shorter))))
    offsets = np.arange(least - len(b), len(a) - least + 1)
    from_a, from_b = np.maximum(0, offsets), np.maximum(0, -offsets)
    length = np.minimum(len(a) - from_a, len(b) - from_b)
    motion = _motions(a, b, (from_a, from_b, length))
    best = int(np.nan_to_num(motion, nan=-2.0).argmax())
    parts = (a[from_a[best] :][: length[best]], b[from_b[best] :][: length[best]])
    means = [part.mean(axis=0) - part.mean() for part in parts]
    look = float(means[0] @ means[1] / (np.linalg.norm(means[0]) * np.linalg.norm(means[1]) + 1e-9))
    return Likeness(look, float(motion[best]), _shared(first, second), int(offsets[best]))


def _motions(a: np.ndarray, b: np.ndarray, spans: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
    """Correlation of the changes in each pair of spans, float64 [spans]: NaN where neither moves, 0 where one does.

    Args:
        spans: first steps in `a` and in `b`, and lengths, int64 [spans] each.
    """
    *starts, length = spans
    middle = a.mean(axis=0)
    a, b = a - middle, b - middle  # small numbers, so that sums of squares keep their digits
    # Products of all steps with all; those of one offset, which lie on a diagonal, come into one column.
    rows = np.arange(len(a))[:, None]
    skewed = np.zeros((len(a), len(a) + len(b) - 1), np.float32)
    skewed[rows, len(b) - 1 + rows - np.arange(len(b))] = a @ b.T
    products = skewed.sum(axis=0)[starts[0] - starts[1] + len(b) - 1]
    sums, powers = [], []
    for part, start in zip((a, b), starts, strict=True):
        total = np.cumsum(np.pad(part, ((1, 0), (0, 0))), axis=0, dtype=np.float64)
        squares = np.cumsum(np.pad((part * part).sum(axis=1), (1, 0)), dtype=np.float64)
        sums.append(total[start + length] - total[start])
        powers.append(squares[start + length] - squares[start] - (sums[-1] ** 2).sum(axis=1) / length)
    still = [power <= STILL_LEVELS**2 * length * a.shape[1] for power in powers]
    joint = products - (sums[0] * sums[1]).sum(axis=1) / length
    motion = joint / np.sqrt(np.maximum(powers[0] * powers[1], 1e-9))
    return np.where(still[0] & still[1], np.nan, np.where(still[0] | still[1], 0.0, motion))


def _shared(first: Fingerprint, second: Fingerprint) -> float:
    """Estimate of the share of all marks that both have, from the smallest of both."""
    if not len(first.marks) or not len(second.marks):
        return np.nan
    both = np.sort(np.concatenate([first.marks, second.marks]))
    twice = both[1:][both[1:] == both[:-1]]
    smallest = np.unique(both)[:NUM_MARKS]
    return float((twice <= smallest[-1]).sum() / len(smallest))


def _looks(prints: Sequence[Fingerprint]) -> np.ndarray:
    """float32 [clips, coefficients]: mean pictures, against what is usual in the corpus, of length 1."""
    return _against_the_usual([each.pictures.mean(axis=0, dtype=np.float32) for each in prints])


def _movements(prints: Sequence[Fingerprint]) -> np.ndarray:
    """The same of where a clip moves and how much, which another start changes little."""
    return _against_the_usual([np.log(1 + each.pictures.std(axis=0, dtype=np.float32)) for each in prints])


def _against_the_usual(maps: list[np.ndarray]) -> np.ndarray:
    coarse = [cv2.dct(each.reshape(GRID, GRID))[:NUM_COEFFICIENTS, :NUM_COEFFICIENTS] for each in maps]
    low = np.stack(coarse).reshape(len(maps), -1)[:, 1:]
    low /= np.linalg.norm(low, axis=1, keepdims=True) + 1e-6  # contrast changes with an encoder's range
    low = (low - low.mean(axis=0)) / (low.std(axis=0) + 1e-3)
    return low / (np.linalg.norm(low, axis=1, keepdims=True) + 1e-6)


def _sharing_marks(prints: Sequence[Fingerprint]) -> np.ndarray:
    """Pairs whose sounds share marks, int64 [pairs, 2]."""
    marks = np.concatenate([each.marks for each in prints])
    clips = np.repeat(np.arange(len(prints)), [len(each.marks) for each in prints])
    order = np.argsort(marks, kind="stable")
    unique, counts = np.unique(_neighbours(marks[order], clips[order]), axis=0, return_counts=True)
    return unique[counts >= LEAST_SHARED]


def _looking_alike(prints: Sequence[Fingerprint], video: np.ndarray) -> np.ndarray:
    """Of each clip the nearest that share a bucket with it, int64 [pairs, 2]."""
    random, looks = np.random.default_rng(0), _looks(prints)
    found = []
    for _ in range(NUM_TABLES):
        # Twice the bits of a bucket order it, so that neighbours are those that agree in more of them.
        signs = looks @ random.normal(size=(looks.shape[1], 2 * NUM_BITS)).astype(np.float32) > 0
        keys = signs @ (1 << np.arange(2 * NUM_BITS)[::-1])
        order = np.lexsort((random.permutation(len(keys)), keys))  # equal ones beside others in each table
        pairs = _neighbours(keys[order] >> NUM_BITS, order)
        pairs = pairs[video[pairs[:, 0]] != video[pairs[:, 1]]]
        found.append(pairs[_cosines(looks, pairs) >= LEAST_ALIKE])
    pairs = np.unique(np.concatenate(found), axis=0)
    limits = np.where([len(each.marks) > 0 for each in prints], MOST_ALIKE, MOST_ALIKE_MUTE)
    return _nearest(pairs, _cosines(looks, pairs) + _cosines(_movements(prints), pairs), limits)


def _cosines(vectors: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    return np.einsum("ij,ij->i", vectors[pairs[:, 0]], vectors[pairs[:, 1]])


def _neighbours(buckets: np.ndarray, clips: np.ndarray) -> np.ndarray:
    """Pairs of clips that lie close in the same bucket, int64 [pairs, 2], the smaller first; both are in order."""
    pairs = [np.zeros((0, 2), np.int64)]
    for distance in range(1, min(NUM_NEIGHBOURS, len(clips) - 1) + 1):
        same = (buckets[distance:] == buckets[:-distance]) & (clips[distance:] != clips[:-distance])
        both = np.stack([clips[:-distance][same], clips[distance:][same]], axis=1)
        pairs.append(np.sort(both, axis=1))
    return np.concatenate(pairs)


def _nearest(pairs: np.ndarray, alike: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """Pairs that are among the most alike of either clip, as many as the clip's limit says."""
    clips, index = pairs.T.ravel(), np.tile(np.arange(len(pairs)), 2)
    order = np.lexsort((-alike[index], clips))
    ranks = np.arange(len(order)) - np.searchsorted(clips[order], clips[order])
    return pairs[np.unique(index[order][ranks < limits[clips[order]]])]
