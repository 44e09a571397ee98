"""Sound features of a clip: written once by `encode`, or made of the stored sound when a clip is read.

Thirteen layers of wav2vec2 are most of a clip's bytes; its sound is a thirtieth of them.
"""

from dataclasses import replace

import numpy as np

from omnihuman.batch import Sound
from omnihuman.data.shards import EncodedClip, Encoders
from omnihuman.encoders import factory
from omnihuman.encoders.factory import Choice
from omnihuman.encoders.speech import SAMPLE_RATE, SpeechEncoder

_INT16 = 32767


def to_int16(sound: Sound | None) -> np.ndarray:
    """int16 [samples], as shards hold sound; empty without any."""
    return np.zeros(0, np.int16) if sound is None else np.round(np.clip(sound.samples, -1, 1) * _INT16).astype(np.int16)


def speech_features(encoder: SpeechEncoder, sound: Sound | None, num_frames: int, fps: float) -> np.ndarray:
    """float16 [num_frames, layers, width]; zeros without sound."""
    if sound is None or not len(sound.samples):
        return np.zeros((num_frames, encoder.num_layers, encoder.width), np.float16)
    return encoder.encode(sound, num_frames, fps).astype(np.float16)


def with_speech(clip: EncodedClip, encoders: Encoders, *, needed: bool = True) -> EncodedClip:
    """The clip with features for each of its frames, which the shards need not hold (`encode.store_speech`).

    Args:
        needed: whether they act; else zeros stand for what was not stored.

    Raises:
        UserError: the encoder's weights are missing or others than the clips were encoded with.
    """
    num_frames = len(clip.keypoints)
    if len(clip.speech) == num_frames:
        return clip
    if not needed or not len(clip.sound):
        zeros = np.zeros((num_frames, encoders.speech_layers, encoders.speech_width), np.float16)
        return replace(clip, speech=zeros)
    choice = Choice(encoders.speech_encoder, encoders.speech_weights, encoders.speech_weights_sha256)
    sound = Sound(clip.sound.astype(np.float32) / _INT16, SAMPLE_RATE)
    return replace(clip, speech=speech_features(factory.speech_encoder(choice), sound, num_frames, encoders.fps))
