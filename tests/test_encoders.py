"""Speech and text encoders."""

import numpy as np
import pytest

from omnihuman.batch import Sound
from omnihuman.config.schema.encode import Encode
from omnihuman.encoders.sizes import encoded_size
from omnihuman.encoders.speech import SAMPLE_RATE, LogMel
from omnihuman.encoders.text import HashedWords
from omnihuman.errors import UserError


def tone(seconds: float, hertz: float = 440.0) -> Sound:
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return Sound((0.3 * np.sin(2 * np.pi * hertz * time)).astype(np.float32), SAMPLE_RATE)


def noise() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.3, SAMPLE_RATE).astype(np.float32)


def test_log_mel_is_aligned_with_frames():
    sound = Sound(np.zeros(2 * SAMPLE_RATE, np.float32), SAMPLE_RATE)
    burst = tone(0.2).samples
    sound.samples[SAMPLE_RATE : SAMPLE_RATE + len(burst)] = burst  # from second 1.0 to 1.2: frames 25 .. 29
    loudness = LogMel().encode(sound, 50, 25.0).reshape(50, LogMel.columns_per_frame, -1)[..., 0].mean(axis=1)
    assert set(np.flatnonzero(loudness > loudness.min() + 0.3)) >= set(range(25, 30))
    assert loudness[:24].max() < loudness[25:30].min()
    assert loudness[31:].max() < loudness[25:30].min()


def test_log_mel_beyond_the_sound_is_silence():
    features = LogMel().encode(tone(0.4), 50, 25.0)
    silence = LogMel().encode(Sound(np.zeros(2 * SAMPLE_RATE, np.float32), SAMPLE_RATE), 50, 25.0)
    np.testing.assert_allclose(features[-1], silence[-1], rtol=0, atol=1e-6)
    assert np.abs(features[:10] - silence[:10]).max() > 1


def test_log_mel_parts_loudness_from_the_vowel():
    """A sound ten times as strong moves the first cosine and no other."""
    quiet, loud = (LogMel().encode(Sound(strength * noise(), SAMPLE_RATE), 25, 25.0) for strength in (0.1, 1.0))
    moved = np.abs(loud - quiet)[2:-2].reshape(-1, LogMel.width // LogMel.columns_per_frame).mean(axis=0)
    assert moved[0] > 20 * moved[1:].max()


def test_log_mel_is_one_layer():
    assert LogMel().encode(tone(0.4), 10, 25.0).shape == (10, LogMel.num_layers, LogMel.width) == (10, 1, 64)


def test_other_rates_are_refused():
    with pytest.raises(UserError, match="16000 Hz is expected"):
        LogMel().encode(Sound(np.zeros(100, np.float32), 8000), 1, 25.0)


def test_words_have_fixed_directions():
    encoder = HashedWords(4)
    first, second = encoder.encode("a red shirt"), encoder.encode("Red hair")
    np.testing.assert_array_equal(first[2], second[1])
    assert encoder.encode("").shape == (1, 64)
    assert encoder.encode("one two three four five six").shape == (4, 64)


@pytest.mark.parametrize(("width", "height"), [(64, 64), (1080, 1920), (1920, 1080), (300, 350), (4000, 100), (1, 1)])
def test_encoded_size(width: int, height: int):
    config = Encode()
    (area,) = config.resolutions
    columns, rows = encoded_size(width, height, area, config)
    assert columns % config.size_multiple == 0 and rows % config.size_multiple == 0
    assert 0.6 < columns * rows / area < 1.4
    assert (columns > rows) == (width > height * 1.07)
