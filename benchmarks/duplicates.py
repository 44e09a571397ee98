"""Finding copies among 100,000 drawn fingerprints: seconds, peak memory and what was found.

As in talks cut into clips, 50 clips each look alike and differ in motion and sound. One clip in a hundred is a copy:
half of them keep their sound, shifted, so that half of their marks are others; half have no sound. Nothing is decoded.
"""

import argparse
import resource
import time

import numpy as np

from omnihuman.data.copies import candidates, compare
from omnihuman.data.fingerprints import GRID, NUM_MARKS, Fingerprint

CLIPS_PER_LOOK, NUM_STEPS = 50, 40
LEVELS_OF_NOISE = 1.5


def draw(num_clips: int, rng: np.random.Generator) -> list[Fingerprint]:
    """Blocks that wander together around a picture, and random marks."""
    looks = rng.uniform(40, 210, (num_clips // CLIPS_PER_LOOK + 1, 1, GRID * GRID)).astype(np.float32)
    prints = []
    for clip in range(num_clips):
        ways = np.cumsum(rng.normal(0, 1.5, (NUM_STEPS, 4)), axis=0) @ rng.normal(size=(4, GRID * GRID))
        pictures = np.clip(looks[clip // CLIPS_PER_LOOK] + ways - ways.mean(axis=0), 0, 255).astype(np.uint8)
        prints.append(Fingerprint(pictures, np.sort(rng.integers(0, 2**32, NUM_MARKS, np.uint32))))
    return prints


def copy(take: Fingerprint, number: int, rng: np.random.Generator) -> Fingerprint:
    """Some steps late, with noise, and with half of the marks or none."""
    late = int(rng.integers(0, NUM_STEPS // 4))
    pictures = take.pictures[late:] + rng.normal(0, LEVELS_OF_NOISE, (NUM_STEPS - late, GRID * GRID))
    kept = rng.permutation(take.marks)[: NUM_MARKS // 2]
    others = rng.integers(0, 2**32, NUM_MARKS - len(kept), np.uint32)
    marks = np.sort(np.concatenate([kept, others])) if number % 2 else take.marks[:0]
    return Fingerprint(np.clip(pictures, 0, 255).astype(np.uint8), marks)


def main() -> None:
    """Draws, searches, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=100_000)
    number = parser.parse_args().clips
    rng = np.random.default_rng(11)
    prints = draw(number, rng)
    originals = rng.choice(number, number // 100, replace=False)
    prints += [copy(prints[original], index, rng) for index, original in enumerate(originals)]
    start = time.process_time()
    pairs = candidates(prints, np.arange(len(prints)))
    searched = time.process_time()
    found = {tuple(pair) for pair in pairs.tolist() if compare(prints[pair[0]], prints[pair[1]]).is_copy}
    compared = time.process_time()
    planted = [(int(original), number + index) for index, original in enumerate(originals)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{len(prints):,} clips: {len(pairs):,} pairs worth a look in {searched - start:.1f} s of processor time,")
    print(f"  compared in {compared - searched:.1f} s; at most {peak:.2f} GiB")
    for name, offset in (("without sound", 0), ("with sound", 1)):
        some = planted[offset::2]
        print(f"  copies {name}: {sum(pair in found for pair in some)} of {len(some)} found")
    print(f"  others taken for copies: {len(found - set(planted))}")


if __name__ == "__main__":
    main()
