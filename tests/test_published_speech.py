"""Published speech encoders on tiny random weights: layers, alignment, long sounds."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.tiny_checkpoints import save_wav2vec2, save_whisper

from omnihuman.batch import Sound
from omnihuman.encoders.factory import Choice, speech_encoder
from omnihuman.encoders.published_speech import STEP, Wav2Vec2, Whisper
from omnihuman.encoders.speech import SAMPLE_RATE, at_video_frames
from omnihuman.errors import UserError


def noise(seconds: float, seed: int = 0) -> Sound:
    """Bursts and pauses, as speech has."""
    random = np.random.default_rng(seed)
    samples = random.normal(0, 0.2, round(seconds * SAMPLE_RATE)).astype(np.float32)
    loudness = np.abs(np.sin(np.arange(len(samples)) / SAMPLE_RATE * 5)).astype(np.float32)
    return Sound(samples * loudness, SAMPLE_RATE)


@pytest.fixture(scope="module")
def wav2vec2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wav2vec2")
    save_wav2vec2(folder)
    return folder


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whisper")
    save_whisper(folder)
    return folder


def test_interpolation_meets_the_middle_of_each_frame() -> None:
    times = (np.arange(100)[:, None, None] + 0.5) / 50 * np.ones((1, 2, 3))  # each feature says its own moment
    np.testing.assert_allclose(at_video_frames(times, 45, 25.0)[:, 1, 2], (np.arange(45) + 0.5) / 25, atol=1e-6)
    np.testing.assert_allclose(at_video_frames(times, 50, 24.0)[:-4, 0, 0], (np.arange(46) + 0.5) / 24, atol=1e-6)
    assert (at_video_frames(times, 80, 25.0)[60:] == times[-1]).all()


def test_wav2vec2_gives_all_hidden_states_of_transformers(wav2vec2: Path) -> None:
    from transformers import Wav2Vec2FeatureExtractor, Wav2Vec2Model

    sound = noise(1.0)
    encoder = speech_encoder(Choice("wav2vec2", str(wav2vec2)))
    assert (encoder.name, encoder.num_layers, encoder.width) == ("wav2vec2", 3, 16)
    # At 49 features for 49 frames of 50 a second nothing is interpolated.
    ours = encoder.encode(sound, 49, 50.0)
    extractor = Wav2Vec2FeatureExtractor.from_pretrained(wav2vec2)
    values = extractor(sound.samples, sampling_rate=SAMPLE_RATE, return_tensors="pt").input_values
    with torch.no_grad():
        states = Wav2Vec2Model.from_pretrained(wav2vec2).eval()(values, output_hidden_states=True).hidden_states
    expected = torch.stack(states, dim=2)[0].numpy()
    assert ours.shape == expected.shape == (49, 3, 16) and ours.dtype == np.float32
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5)


def test_whisper_gives_all_hidden_states_of_transformers(whisper: Path) -> None:
    from transformers import WhisperFeatureExtractor, WhisperModel

    sound = noise(2.0)
    encoder = speech_encoder(Choice("whisper", str(whisper)))
    assert (encoder.name, encoder.num_layers, encoder.width) == ("whisper", 3, 16)
    ours = encoder.encode(sound, 100, 50.0)
    mel = WhisperFeatureExtractor()(sound.samples, sampling_rate=SAMPLE_RATE, return_tensors="pt").input_features
    with torch.no_grad():
        states = WhisperModel.from_pretrained(whisper).eval().encoder(mel, output_hidden_states=True).hidden_states
    np.testing.assert_allclose(ours, torch.stack(states, dim=2)[0, :100].numpy(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["wav2vec2", "whisper"])
def test_frames_beyond_and_short_sounds(name: str, request: pytest.FixtureRequest) -> None:
    encoder = speech_encoder(Choice(name, str(request.getfixturevalue(name))))
    for seconds, frames in ((0.0, 3), (0.001, 1), (0.5, 40)):
        features = encoder.encode(noise(seconds), frames, 25.0)
        assert features.shape == (frames, 3, 16) and np.isfinite(features).all()
    with pytest.raises(UserError, match="16000 Hz is expected"):
        encoder.encode(Sound(np.zeros(100, np.float32), 8000), 1, 25.0)


def test_whisper_hears_a_long_sound_in_consecutive_windows(whisper: Path) -> None:
    encoder = Whisper(str(whisper))
    sound = noise(33.0)
    cut = 30 * SAMPLE_RATE
    parts = ((sound.samples[:cut], 1500), (sound.samples[cut:], 150))
    joined = np.concatenate([encoder.encode(Sound(part, SAMPLE_RATE), frames, 50.0) for part, frames in parts])
    np.testing.assert_allclose(encoder.encode(sound, 1650, 50.0), joined, rtol=0, atol=1e-6)


def test_wav2vec2_in_windows_is_exact_where_the_network_hears_no_further_than_the_context(tmp_path: Path) -> None:
    """With layer norm in the convolutions and no attention between moments only the seams could differ, and do not."""
    save_wav2vec2(tmp_path, feat_extract_norm="layer", do_stable_layer_norm=True)
    windows, whole = Wav2Vec2(str(tmp_path), window_seconds=2.0), Wav2Vec2(str(tmp_path), window_seconds=60.0)
    for encoder in (windows, whole):
        for layer in encoder._network.encoder.layers:
            torch.nn.init.zeros_(layer.attention.out_proj.weight)
    sound = noise(9.3)
    expected = whole.encode(sound, 230, 25.0)
    np.testing.assert_allclose(windows.encode(sound, 230, 25.0), expected, rtol=0, atol=1e-4)
    assert np.ptp(expected, axis=0).max() > 0.1


@pytest.mark.parametrize(("norm", "tolerance"), [("layer", 1e-3), ("group", 0.05)])
def test_wav2vec2_in_windows_is_near_the_whole_and_exact_for_short_sounds(
    tmp_path: Path, norm: str, tolerance: float
) -> None:
    """Mean difference over the deviation; the group norm of the base model hears the window as its whole world."""
    save_wav2vec2(tmp_path, feat_extract_norm=norm)
    windows, whole = Wav2Vec2(str(tmp_path), window_seconds=5.0), Wav2Vec2(str(tmp_path), window_seconds=60.0)
    short, long = noise(6.5), noise(23.0)
    np.testing.assert_array_equal(windows.encode(short, 160, 25.0), whole.encode(short, 160, 25.0))
    expected = whole.encode(long, 570, 25.0)
    difference = np.abs(windows.encode(long, 570, 25.0) - expected)
    assert 0 < difference.mean() < tolerance * expected.std()


def test_attention_spans_a_window_and_its_context_at_most(wav2vec2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = Wav2Vec2(str(wav2vec2))
    lengths, states = [], encoder._states
    monkeypatch.setattr(encoder, "_states", lambda samples: (lengths.append(len(samples)), states(samples))[1])
    assert encoder.encode(noise(61.0), 1525, 25.0).shape == (1525, 3, 16)
    assert len(lengths) == 4 and max(lengths) <= 22 * SAMPLE_RATE + STEP


def test_other_convolutions_and_a_deaf_whisper_are_refused(tmp_path: Path) -> None:
    save_wav2vec2(tmp_path / "slow", conv_stride=(5, 2, 2, 2, 2, 2, 4))
    with pytest.raises(UserError, match=r"every 640 samples came, expected 320 \(50 Hz\)"):
        Wav2Vec2(str(tmp_path / "slow"))
    save_whisper(tmp_path / "whisper")
    (tmp_path / "whisper" / "preprocessor_config.json").unlink()
    with pytest.raises(UserError, match=r"no preprocessor_config\.json"):
        Whisper(str(tmp_path / "whisper"))


def test_sound_is_normalised_only_where_the_checkpoint_says_so(wav2vec2: Path, tmp_path: Path) -> None:
    quiet, loud = (Sound(noise(1.0).samples * strength, SAMPLE_RATE) for strength in (0.5, 1.0))
    normalising = Wav2Vec2(str(wav2vec2))
    np.testing.assert_allclose(*(normalising.encode(sound, 25, 25.0) for sound in (quiet, loud)), atol=1e-3)
    save_wav2vec2(tmp_path, feat_extract_norm="layer")
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"do_normalize": False}))
    raw = Wav2Vec2(str(tmp_path))
    assert np.abs(raw.encode(quiet, 25, 25.0) - raw.encode(loud, 25, 25.0)).max() > 1e-5
