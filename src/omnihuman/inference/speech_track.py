"""The features of a sound of any length, made piece by piece."""

from functools import lru_cache

import numpy as np

from omnihuman.batch import Sound
from omnihuman.encoders.speech import SAMPLE_RATE, SpeechEncoder

PIECE_SECONDS = 20.0
"""Thirteen layers of wav2vec2 are a megabyte for each second of sound."""
CONTEXT_SECONDS = 2.0
"""Of sound that is heard on either side of a piece."""


class SpeechTrack:
    """Features at video frames; only pieces that a segment needs are held.

    Sounds of up to `PIECE_SECONDS` and its context are encoded whole, as in training.
    """

    def __init__(self, encoder: SpeechEncoder, sound: Sound | None, num_frames: int, fps: float) -> None:
        """Encodes nothing yet.

        Args:
            sound: at the encoder's rate; None: features are zeros.
            num_frames: of the whole video, F.
        """
        self.num_frames = num_frames
        self._encoder, self._sound, self._fps = encoder, sound, fps
        self._context = round(CONTEXT_SECONDS * fps)
        piece = round(PIECE_SECONDS * fps)
        self._piece = piece if num_frames > piece + self._context else max(num_frames, 1)
        self._encoded = lru_cache(maxsize=2)(self._encode)  # a segment lies in two pieces at most

    @property
    def samples(self) -> np.ndarray:
        """float32 [samples] that are heard; none without a sound."""
        return np.zeros(0, np.float32) if self._sound is None else self._sound.samples

    def between(self, first: int, last: int) -> np.ndarray:
        """float32 [last - first, layers, width] of frames within the video."""
        if self._sound is None:
            return np.zeros((last - first, self._encoder.num_layers, self._encoder.width), np.float32)
        pieces = range(first // self._piece, max(first, last - 1) // self._piece + 1)
        begin = pieces.start * self._piece
        return np.concatenate([self._encoded(piece) for piece in pieces])[first - begin : last - begin]

    def _encode(self, piece: int) -> np.ndarray:
        """Features of one piece, heard with what is around it."""
        assert self._sound is not None
        first, last = piece * self._piece, min((piece + 1) * self._piece, self.num_frames)
        begin = max(0, first - self._context)
        end = min(self.num_frames, last + self._context)
        samples = self._sound.samples[self._sample(begin) : None if end == self.num_frames else self._sample(end)]
        features = self._encoder.encode(Sound(samples, SAMPLE_RATE), end - begin, self._fps)
        return features[first - begin : last - begin]

    def _sample(self, frame: int) -> int:
        return round(frame / self._fps * SAMPLE_RATE)
