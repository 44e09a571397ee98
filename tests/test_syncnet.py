from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from omnihuman.batch import Frames, Sound
from omnihuman.config.schema.score import Score
from omnihuman.data.scorers.content import ClipContent
from omnihuman.data.scorers.face import FaceTrack
from omnihuman.data.scorers.registry import scorers_for
from omnihuman.data.scorers.syncnet import NAMES, PAD_VALUE, face_crops, measure_syncnet
from omnihuman.encoders.syncnet import SyncNet, compare, load_syncnet, measure_sync, mel_cepstra
from omnihuman.errors import UserError
from omnihuman.storage.files import file_sha256

REFERENCE_CEPSTRA = [
    [
        19.3247,
        25.6453,
        4.7389,
        -16.3534,
        -30.0122,
        -31.4397,
        -21.4759,
        -9.2748,
        -0.7015,
        0.5922,
        -1.933,
        -5.7904,
        -7.0807,
    ],
    [
        21.9301,
        -6.3823,
        -44.2404,
        -6.0728,
        38.4846,
        7.6259,
        -33.1712,
        -9.7149,
        23.838,
        6.5441,
        -17.2586,
        -7.2924,
        7.1974,
    ],
]
"""Steps 0 and 7 by python_speech_features 0.6 of `sweep()`."""


def sweep() -> np.ndarray:
    """int16 amplitude, 16 kHz, with silence at the end."""
    time = np.arange(2000) / 16000
    return np.append(np.round(9000 * np.sin(2 * np.pi * (200 + 9000 * time) * time)), np.zeros(900))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state dict of the published layout with random values."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "syncnet_v2.model"
    torch.save(SyncNet().state_dict(), path)
    return path


def test_cepstra_are_those_of_python_speech_features() -> None:
    found = mel_cepstra(sweep())
    assert found.shape == (17, 13)
    np.testing.assert_allclose(found[[0, 7]], REFERENCE_CEPSTRA, atol=2e-4)


def test_the_layout_is_the_published_one() -> None:
    """Names and shapes of SyncNetModel.py: what its state dict holds, no more and no less."""
    state = {name: tuple(value.shape) for name, value in SyncNet().state_dict().items()}
    assert state["netcnnaud.4.weight"] == (192, 64, 3, 3) and state["netcnnaud.18.weight"] == (512, 256, 5, 4)
    assert state["netcnnlip.0.weight"] == (96, 3, 5, 7, 7) and state["netcnnlip.18.weight"] == (512, 256, 1, 6, 6)
    assert state["netfcaud.3.weight"] == state["netfclip.3.weight"] == (1024, 512)
    convolutions = {name.split(".")[1] for name, shape in state.items() if name.startswith("netcnn") and len(shape) > 1}
    assert convolutions == {"0", "4", "8", "11", "14", "18"} and len(state) == 2 * 6 * 7 + 2 * 9


@pytest.mark.parametrize("lead", [-6, 0, 4])
def test_offset_is_positive_where_the_sound_leads(lead: int) -> None:
    """Embeddings of 60 windows that agree once the sound is moved back."""
    embeddings = torch.randn(80, 1024, generator=torch.Generator().manual_seed(1))
    pictures, sounds = embeddings[10:70], embeddings[10 + lead : 70 + lead]
    sync = compare(pictures, sounds)
    assert sync.offset_frames == lead and sync.num_windows == 60 and sync.distance < 25 and sync.confidence > 10


def test_comparison_follows_the_published_code() -> None:
    draw = torch.Generator().manual_seed(2)
    pictures, sounds = torch.randn(9, 1024, generator=draw), torch.randn(9, 1024, generator=draw)
    padded = torch.nn.functional.pad(sounds, (0, 0, 15, 15))
    distances = torch.stack(
        [torch.nn.functional.pairwise_distance(pictures[[i]].repeat(31, 1), padded[i : i + 31]) for i in range(9)], 1
    ).mean(1)
    sync = compare(pictures, sounds)
    assert sync.distance == pytest.approx(float(distances.min()))
    assert sync.confidence == pytest.approx(float(distances.median() - distances.min()), abs=1e-5)
    assert sync.offset_frames == 15 - int(distances.argmin())


def face(num_frames: int) -> FaceTrack:
    still = np.ones(num_frames)
    return FaceTrack(still > 0, num_frames, num_frames, np.full((num_frames, 2), 60.0), 45 * still, 0 * still)


def content(num_frames: int, seconds: float) -> ClipContent:
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 255, (num_frames, 140, 120, 3), np.uint8)
    sound = Sound(draw.normal(0, 0.1, round(16000 * seconds)).astype(np.float32), 16000)
    made = ClipContent(Frames(pixels, np.arange(num_frames) / 25), sound, None, num_frames / 25, 25.0)
    made.__dict__["face"] = face(num_frames)  # where a detector would have put it
    return made


def test_crops_reach_outside_the_picture_with_the_pad_value() -> None:
    clip = content(14, 1)
    crops = face_crops(clip.frames.pixels, clip.face)
    assert crops.shape == (14, 224, 224, 3)
    # Half the face is 65.25 pixels and its middle at (60, 73.05): the crop begins 31 pixels left of the picture.
    assert (crops[7, :, :36] == PAD_VALUE).all() and crops[7, 20:100, 60:160].std() > 40


def test_a_clip_is_measured_with_the_pinned_file(weights: Path) -> None:
    clip, digest = content(100, 0.4), file_sha256(weights)  # sound for ten frames: five windows
    answers = measure_syncnet(str(weights), digest, clip)
    assert [answer.scorer for answer in answers] == list(NAMES)
    assert all(answer.status == "ok" and answer.num_samples == 5 for answer in answers)
    assert clip.sound is not None
    crops = face_crops(clip.frames.pixels, clip.face)
    direct = measure_sync(load_syncnet(weights, digest), crops, clip.sound.samples)
    assert answers[1].value == pytest.approx(direct.distance)
    scorer = scorers_for(Score(syncnet_weights=str(weights), syncnet_sha256=digest))[-1]
    assert scorer.implementation == "published" and scorer.weights_sha256 == digest


def test_without_weights_or_with_a_small_face_it_says_why(weights: Path) -> None:
    (answer, *_) = scorers_for(Score())[-1].measure(content(100, 0.4))
    assert answer.status == "na" and "score.syncnet_weights" in answer.error
    small = content(100, 0.4)
    small.__dict__["face"] = replace(face(100), eye_distance=np.full(100, 20.0))
    answers = measure_syncnet(str(weights), file_sha256(weights), small)
    assert answers[0].status == "na" and "short_side_pixels" in answers[0].error


def test_wrong_files_are_refused(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has the hash"):
        load_syncnet(weights, "0" * 64)
    with pytest.raises(UserError, match="no such file"):
        load_syncnet(tmp_path / "nothing", "")
    other = tmp_path / "other.model"
    torch.save({"netcnnaud.0.weight": torch.zeros(1)}, other)
    with pytest.raises(UserError, match="not a state dict"):
        load_syncnet(other, file_sha256(other))
