from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from omnihuman.batch import Frames, Sound
from omnihuman.config.compose import compose
from omnihuman.config.schema.score import Score
from omnihuman.data.scorers.content import ClipContent
from omnihuman.data.scorers.face import FaceTrack
from omnihuman.data.scorers.faces import FACES
from omnihuman.data.scorers.mouth_track import HEIGHT, WIDTH, mouth_patches
from omnihuman.data.scorers.registry import scorers_for
from omnihuman.data.scorers.tracked_lip_sync import (
    canonical_correlations,
    measure_tracked_lip_sync,
    sound_bands,
    stand_out,
)
from omnihuman.errors import UserError
from omnihuman.media.sound import read_sound
from omnihuman.media.video import read_frames

TALK = Path(__file__).parents[2] / "shared/media/talk"
FPS, RATE, NUM_FRAMES = 25, 16000, 150


def test_a_mouth_stands_still_while_the_head_sways_and_the_detector_jitters() -> None:
    draw = np.random.default_rng(0)
    picture = cv2.GaussianBlur(draw.integers(0, 255, (300, 300, 3), np.uint8), (0, 0), 2)
    picture = cv2.normalize(picture, None, 0, 255, cv2.NORM_MINMAX)  # pyright: ignore[reportCallIssue, reportArgumentType]
    sway = 15 * np.sin(np.arange(60) / 5)
    pixels = np.stack([cv2.warpAffine(picture, np.array([[1, 0, x], [0, 1, 0.5 * x]]), (300, 300)) for x in sway])
    eyes = np.stack([150 + sway, 120 + 0.5 * sway], axis=1) + draw.normal(0, 1.5, (60, 2))
    face = FaceTrack(np.ones(60, bool), 60, 60, eyes, np.full(60, 40.0), np.zeros(60))
    grey = np.stack([cv2.cvtColor(each, cv2.COLOR_RGB2GRAY) for each in pixels])
    steady = mouth_patches(pixels, grey, face)
    assert steady.shape == (60, HEIGHT, WIDTH, 3)
    blank = np.full_like(grey, 128)  # nothing to follow, so that only the detector speaks
    by_detector = mouth_patches(pixels, blank, face)
    assert steady.astype(float).std(axis=0).mean() < 0.4 * by_detector.astype(float).std(axis=0).mean()


@pytest.mark.parametrize("lead", [-7, 0, 5])
def test_lag_and_sign_are_found_whatever_signal_goes_with_whatever_band(lead: int) -> None:
    draw = np.random.default_rng(1)
    sound = draw.normal(size=(NUM_FRAMES, 3))
    mouth = draw.normal(size=(NUM_FRAMES, 4))
    mouth[:, 2] -= 1.5 * np.roll(sound[:, 1], lead)  # a mouth that is late: the sound leads
    value, offset = stand_out(canonical_correlations(mouth, sound))
    assert offset == lead and (value > 4) == (abs(lead) <= 3)


def test_bands_are_those_of_the_moment() -> None:
    time = np.arange(RATE) / RATE
    tone = np.where(time < 0.5, np.sin(2 * np.pi * 200 * time), np.sin(2 * np.pi * 4500 * time))
    bands = sound_bands(Sound(tone.astype(np.float32), RATE), 25, FPS)
    assert bands[:11, 0].min() > bands[14:, 0].max() + 2 and bands[14:, 2].min() > bands[:11, 2].max() + 2


def test_silence_a_short_clip_and_no_face_have_a_reason() -> None:
    draw = np.random.default_rng(2)
    pixels = np.repeat(draw.integers(0, 255, (1, 80, 80, 3), np.uint8), 60, axis=0)
    silent = Sound(np.zeros(38400, np.float32), RATE)
    clip = ClipContent(Frames(pixels, np.arange(60) / FPS), silent, None, 2.4, FPS)
    assert "no face" in measure_tracked_lip_sync(clip)[0].error
    still = np.ones(60)
    clip.__dict__["face"] = FaceTrack(still > 0, 60, 60, np.full((60, 2), 40.0), 15 * still, 0 * still)
    confidence, offset = measure_tracked_lip_sync(clip)
    assert confidence.value == 0 and offset.status == "na"
    assert measure_tracked_lip_sync(replace(clip, sound=None))[0].status == "na"


def test_the_policy_for_real_people_chooses_it_and_an_unknown_name_is_refused() -> None:
    chosen = {name: scorer for scorer in scorers_for(_real_people()) for name in scorer.names}
    assert chosen["lip_sync"].measure is measure_tracked_lip_sync
    plain = {name: scorer for scorer in scorers_for(Score()) for name in scorer.names}
    assert chosen.keys() == plain.keys() | set(FACES.names)
    assert plain["lip_sync"].version != chosen["lip_sync"].version
    with pytest.raises(UserError, match="darkness, tracked or trained"):
        scorers_for(Score(lip_sync="lips"))


def _real_people() -> Score:
    return compose("demo", ["groups.policy=real_people"]).score


@pytest.mark.skipif(not TALK.is_dir(), reason="real clips are not in ../shared/media/talk")
def test_a_real_speaker_is_told_from_the_same_sound_late() -> None:
    path = TALK / "lp_d11.mp4"
    pixels = read_frames(path, fps=FPS, short_side_pixels=320, end_seconds=8).pixels
    sound = read_sound(path, RATE, 0.0, 8.0)
    assert sound is not None
    frames = Frames(pixels[:NUM_FRAMES], np.arange(NUM_FRAMES) / FPS)
    values = []
    for shift in (0, 8, 11, 14, 17, 20, 23):
        first = shift * RATE // FPS
        heard = Sound(sound.samples[first : first + NUM_FRAMES * RATE // FPS], RATE)
        values.append([answer.value for answer in measure_tracked_lip_sync(ClipContent(frames, heard, None, 6.0, FPS))])
    own, *late = values
    assert own[0] > np.mean([value for value, _ in late]) + 0.3 and abs(own[1]) <= 2
