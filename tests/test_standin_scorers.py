"""Stand-ins without weights: on constructed clips whose value is known, and that more of a fault never scores less."""

from functools import partial
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnihuman.batch import Frames, Sound
from omnihuman.data.scorers.content import ClipContent, Scorer
from omnihuman.data.scorers.faces import FACES
from omnihuman.data.scorers.framing import BORDERS, WATERMARK
from omnihuman.data.scorers.movement import MOTION
from omnihuman.data.scorers.picture import BLOWN_SHARE
from omnihuman.data.scorers.speech import SPEECH_PRESENCE
from omnihuman.media.video import read_frames

MEDIA = Path(__file__).parents[2] / "shared/media"
FPS, NUM_FRAMES, RATE = 25.0, 25, 16000
quick = partial(settings, deadline=None, max_examples=8)


def clip(pixels: np.ndarray, sound: Sound | None = None) -> ClipContent:
    seconds = np.arange(len(pixels)) / FPS
    return ClipContent(Frames(pixels.astype(np.uint8), seconds), sound, None, len(pixels) / FPS, FPS)


def value(scorer: Scorer, content: ClipContent) -> float:
    answer = scorer.measure(content)[0]
    assert answer.status == "ok"
    return answer.value


def scene(height: int = 120, width: int = 160, dx: float = 0.0) -> np.ndarray:
    """A smooth texture that moves to the right, float32 [F, H, W, 3]."""
    wide = width + round(abs(dx) * NUM_FRAMES) + 8
    noise = np.random.default_rng(4).uniform(40, 215, (height // 6, wide // 6)).astype(np.float32)
    texture = cv2.resize(noise, (wide, height), interpolation=cv2.INTER_CUBIC)
    moved = [
        cv2.warpAffine(texture, np.array([[1, 0, i * dx - (wide - width)], [0, 1, 0]], np.float32), (width, height))
        for i in range(NUM_FRAMES)
    ]
    return np.repeat(np.clip(np.stack(moved), 0, 255)[..., None], 3, axis=-1)


def bordered(top: int, left: int, level: int = 0) -> np.ndarray:
    pixels = scene()
    pixels[:, :top] = pixels[:, 120 - top :] = level
    pixels[:, :, :left] = pixels[:, :, 160 - left :] = level
    return pixels


def test_borders_are_their_share_of_the_area() -> None:
    assert value(BORDERS, clip(bordered(0, 0))) == 0
    assert value(BORDERS, clip(bordered(15, 0))) == pytest.approx(0.25)
    assert value(BORDERS, clip(bordered(0, 20, level=255))) == pytest.approx(0.25)
    assert value(BORDERS, clip(bordered(12, 16))) == pytest.approx(1 - 0.8 * 0.8)
    noise = np.random.default_rng(0).normal(0, 1.5, (NUM_FRAMES, 120, 160, 1))
    assert value(BORDERS, clip(np.clip(bordered(15, 0) + noise, 0, 255))) == pytest.approx(0.25)
    assert value(BORDERS, clip(np.full((NUM_FRAMES, 120, 160, 3), 90))) == 0  # flat as a whole


def test_a_head_before_a_plain_wall_has_no_border() -> None:
    wall = np.full((120, 160, 3), 150, np.uint8)
    cv2.ellipse(wall, (80, 90), (30, 45), 0, 0, 360, (220, 180, 150), -1)
    assert value(BORDERS, clip(np.repeat(wall[None], NUM_FRAMES, axis=0))) == 0


@given(st.lists(st.integers(1, 40), min_size=2, max_size=3, unique=True))
@quick()
def test_wider_borders_score_more(tops: list[int]) -> None:
    found = [value(BORDERS, clip(bordered(top, 0))) for top in sorted(tops)]
    assert all(a < b for a, b in pairwise(found))


def marked(num_strokes: int) -> np.ndarray:
    """Strokes of 2 x 20 pixels, 8 apart, in the upper left corner of 30 x 40 pixels."""
    pixels = scene(dx=4.0) * 0.5
    for i in range(num_strokes):
        pixels[:, 4:24, 4 + 8 * i : 6 + 8 * i] = 255
    return pixels


def test_a_watermark_is_the_share_of_its_corner() -> None:
    assert value(WATERMARK, clip(marked(0))) == pytest.approx(0, abs=0.01)
    for number in (1, 2, 4):
        assert value(WATERMARK, clip(marked(number))) == pytest.approx(number * 40 / 1200, abs=0.01)
    everywhere = np.where((np.arange(160) % 8 < 2)[None, None, :, None], 255, scene(dx=4.0) * 0.5)
    assert value(WATERMARK, clip(everywhere)) == pytest.approx(0, abs=0.03), "a texture is no mark"
    assert WATERMARK.measure(clip(scene()[:3]))[0].status == "na"


@given(st.integers(0, 3))
@quick()
def test_more_strokes_score_more(number: int) -> None:
    assert value(WATERMARK, clip(marked(number))) < value(WATERMARK, clip(marked(number + 1)))


@given(st.floats(0, 0.9), st.floats(0.05, 0.1))
@quick()
def test_blown_light_is_counted(share: float, more: float) -> None:
    def lit(part: float) -> np.ndarray:
        pixels = np.full((NUM_FRAMES, 100, 60, 3), 120)
        pixels[:, : round(part * 100)] = 255
        return pixels

    found = value(BLOWN_SHARE, clip(lit(share)))
    assert found == pytest.approx(round(share * 100) / 100)
    assert found < value(BLOWN_SHARE, clip(lit(share + more)))


@pytest.mark.parametrize("dx", [0.5, 1.0, 2.0])
def test_a_camera_that_pans_is_no_motion(dx: float) -> None:
    assert value(MOTION, clip(scene(dx=dx))) < 0.1 * dx * FPS / np.hypot(120, 160)


def walking(dx: float) -> np.ndarray:
    """A textured square of 60 x 60 pixels that moves before a still wall."""
    pixels, square = scene(), scene(60, 60) * 0.8 + 40
    for i in range(NUM_FRAMES):
        left = 30 + dx * i
        pixels[i, 40:100, round(left) : round(left) + 60] = square[0]
    return pixels


def test_motion_is_that_of_the_part_which_moves() -> None:
    known = {dx: dx * FPS / np.hypot(120, 160) * 60 * 60 / (120 * 160) for dx in (0.5, 1.0)}
    found = {dx: value(MOTION, clip(walking(dx))) for dx in (0.0, *known)}
    assert found[0.0] < 0.002 and found[0.5] < found[1.0]
    for dx, expected in known.items():
        assert found[dx] == pytest.approx(expected, rel=0.4)


def test_a_voice_at_the_rate_of_syllables_is_speech_and_steady_or_slow_tones_are_less() -> None:
    time = np.arange(2 * RATE) / RATE
    tone = sum(np.sin(2 * np.pi * 140 * k * time) / k for k in range(1, 15))

    def heard(hertz: float, depth: float) -> float:
        loud = 1 - depth / 2 + depth / 2 * np.sin(2 * np.pi * hertz * time)
        sound = Sound((0.1 * loud * tone).astype(np.float32), RATE)
        return value(SPEECH_PRESENCE, clip(scene(), sound))

    assert heard(4.0, 1.0) == pytest.approx(1.0, abs=0.05)
    depths = [heard(4.0, depth) for depth in (0.0, 0.3, 0.6, 1.0)]
    assert depths == sorted(depths) and depths[0] == 0
    assert heard(0.5, 1.0) < 0.2 and heard(20.0, 1.0) < 0.2


def test_faces_of_real_people_are_counted() -> None:
    path = MEDIA / "talk/lp_d11.mp4"
    if not path.is_file():
        pytest.skip(f"{path} is not here")
    one = read_frames(path, fps=5.0, short_side_pixels=160, end_seconds=2.0).pixels
    number, steadiness = (answer.value for answer in FACES.measure(clip(one)))
    assert (number, steadiness) == (1, 1)
    assert FACES.measure(clip(np.concatenate([one, one], axis=2)))[0].value == 2
    nobody = FACES.measure(clip(scene()))
    assert [answer.value for answer in nobody] == [0, 1]
