"""Lip sync by the small SyncNet that `omnihuman data train-syncnet` trained on the user's own clips."""

from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from omnihuman.batch import Sound
from omnihuman.data.scorers.content import ClipContent, Measurement, Scorer, measured, not_applicable
from omnihuman.data.scorers.lip_sync import MAX_LAG_FRAMES, NAMES, hindrance
from omnihuman.data.scorers.mouth_track import mouth_patches
from omnihuman.data.scorers.tracked_lip_sync import stand_out
from omnihuman.encoders.weights import check_file
from omnihuman.errors import UserError

if TYPE_CHECKING:
    from omnihuman.encoders.small_syncnet import SmallSyncNet, TrainedOn

OPTION = "score.lip_sync_weights"
FPS, SAMPLE_RATE = 25, 16000
HEIGHT, WIDTH = 28, 32
"""Of the network's pictures."""
MIN_FRAMES = 3 * MAX_LAG_FRAMES


def trained_scorer(weights: str, sha256: str) -> Scorer:
    """The scorer with weights of the project's own; version and licence say what they were trained on.

    Raises:
        UserError: the file is missing or no such network.
    """
    if not weights:
        raise UserError(
            f"{OPTION} is empty: train a network by `omnihuman data train-syncnet`, or set score.lip_sync=tracked"
        )
    told = _trained_on(weights)
    return Scorer(
        NAMES,
        partial(measure_trained, weights, sha256),
        f"1 {told.label()}",
        f"that of the clips it was trained on: {', '.join(told.licences) or 'not stated'}",
        "trained",
        sha256,
        partial(check_file, OPTION, Path(weights), sha256),
    )


def measure_trained(weights: str, sha256: str, content: ClipContent) -> tuple[Measurement, ...]:
    """How far the likeness of mouth and sound at lags near 0 stands above the other lags; and the best lag of all.

    A positive offset, in frames, means that the sound leads the picture, as SyncNet's does.

    Raises:
        UserError: the weights are missing or not the pinned ones.
    """
    if reason := hindrance(content, MIN_FRAMES):
        return not_applicable(NAMES, reason)
    assert content.sound is not None
    if content.fps != FPS or content.sound.sample_rate != SAMPLE_RATE:
        return not_applicable(NAMES, f"it needs {FPS} frames a second and sound at {SAMPLE_RATE} Hz")
    network = _network(weights, sha256)
    num_frames = len(content.grey)
    similarities = lag_similarities(seen(network, content), heard(network, content.sound, num_frames))
    value, offset = stand_out(similarities)
    return measured(NAMES[0], value, num_frames), measured(NAMES[1], offset, num_frames)


def seen(network: "SmallSyncNet", content: ClipContent) -> np.ndarray:
    """Embeddings of the windows of pictures, float32 [F - 4, 128]."""
    from omnihuman.encoders.small_syncnet import embed_pictures

    return embed_pictures(network, mouths_of(content))


def heard(network: "SmallSyncNet", sound: Sound, num_frames: int) -> np.ndarray:
    """Embeddings of the windows of sound, float32 [F - 4, 128]."""
    from omnihuman.encoders.small_syncnet import cepstra_of, embed_sound

    return embed_sound(network, cepstra_of(sound.samples, num_frames))


def mouths_of(content: ClipContent) -> np.ndarray:
    """What the network sees of each frame, uint8 [F, 28, 32, 3]."""
    patches = mouth_patches(content.frames.pixels, content.grey, content.face)
    return np.stack([cv2.resize(patch, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA) for patch in patches])


def lag_similarities(pictures: np.ndarray, sounds: np.ndarray) -> np.ndarray:
    """Mean product of what overlaps at the lags -15..15, float64 [31]; at a positive lag the mouth comes later.

    Args:
        pictures, sounds: [windows, channels], of length 1 each.
    """
    products = pictures.astype(np.float64) @ sounds.T.astype(np.float64)  # [window of pictures, of sound]
    return np.array([np.diagonal(products, -lag).mean() for lag in range(-MAX_LAG_FRAMES, MAX_LAG_FRAMES + 1)])


@cache
def _trained_on(weights: str) -> "TrainedOn":
    from omnihuman.encoders.small_syncnet import read_trained_on

    return read_trained_on(Path(weights))


@cache
def _network(weights: str, sha256: str) -> "SmallSyncNet":
    from omnihuman.encoders.small_syncnet import load_small_syncnet

    check_file(OPTION, Path(weights), sha256)
    return load_small_syncnet(Path(weights))
