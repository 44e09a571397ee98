"""Text encoders. The offline one gives each word a fixed random direction, so that equal words are equal tokens."""

import hashlib
import re
from typing import Protocol

import numpy as np

_START = "<start>"


class TextEncoder(Protocol):
    """A frozen encoder from a prompt to token embeddings."""

    name: str
    width: int

    def encode(self, prompt: str) -> np.ndarray:
        """float32 [L, width]; the empty prompt has at least one token."""
        ...

    def num_tokens(self, prompt: str) -> int:
        """How many tokens the whole prompt has; `encode` cuts those off that are too many."""
        ...


class HashedWords:
    """One start token, then one token a word: unit-variance Gaussian directions seeded by the word's hash."""

    name = "hashed_words"
    width = 64

    def __init__(self, max_tokens: int) -> None:
        self._max_tokens = max_tokens

    def encode(self, prompt: str) -> np.ndarray:
        """float32 [L, 64] with 1 <= L <= max_tokens; later words are cut off."""
        return np.stack([_direction(word, self.width) for word in self._words(prompt)[: self._max_tokens]])

    def num_tokens(self, prompt: str) -> int:
        """See `TextEncoder.num_tokens`."""
        return len(self._words(prompt))

    @staticmethod
    def _words(prompt: str) -> list[str]:
        return [_START, *re.findall(r"\w+", prompt.lower())]


def _direction(word: str, width: int) -> np.ndarray:
    seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "little")
    return np.random.default_rng(seed).standard_normal(width).astype(np.float32)
