"""Random numbers that are pure functions of a key, so that neither resume, order nor world size changes them."""

import hashlib

import numpy as np


def uniform(*key: int | str) -> float:
    """A number in [0, 1) that is a pure function of its key, e.g. (seed, stage, sample index, condition)."""
    digest = hashlib.blake2b("/".join(map(str, key)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") / 2**64


def generator(*key: int | str) -> np.random.Generator:
    """A random generator that is a pure function of its key."""
    digest = hashlib.blake2b("/".join(map(str, key)).encode(), digest_size=16).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))
