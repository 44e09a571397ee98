import cv2
import numpy as np
import pytest

from omnihuman.batch import KEYPOINTS, Frames, Keypoints, Sound
from omnihuman.data.scorers.content import ClipContent
from omnihuman.data.scorers.lip_sync import confidence, lagged_correlations
from omnihuman.data.scorers.registry import SCORERS

FPS, NUM_FRAMES, SIDE, RATE = 25.0, 60, 160, 16000
SECONDS = np.arange(NUM_FRAMES) / FPS


def values(content: ClipContent) -> dict[str, float | str]:
    """Value by scorer, or the status where there is none."""
    answers = [answer for scorer in SCORERS for answer in scorer.measure(content)]
    assert [answer.scorer for answer in answers] == [name for scorer in SCORERS for name in scorer.names]
    return {answer.scorer: answer.value if answer.status == "ok" else answer.status for answer in answers}


def syllables(seed: int = 0) -> np.ndarray:
    """Loudness 0..1 at every frame."""
    noise = np.random.default_rng(seed).normal(size=NUM_FRAMES + 8)
    smooth = np.convolve(noise, np.hanning(5), "same")[4:-4]
    return np.clip(0.4 + 0.5 * smooth, 0, 1)


def voice(loudness: np.ndarray) -> Sound:
    time = np.arange(int(NUM_FRAMES / FPS * RATE)) / RATE
    tone = sum(np.sin(2 * np.pi * 130 * k * time) / k for k in range(1, 12))
    return Sound((0.2 * np.interp(time, SECONDS, loudness) * tone).astype(np.float32), RATE)


def talking(opening: np.ndarray, sound: Sound | None, wrist_y: float = 0.9) -> ClipContent:
    """A face that sways before a textured wall, its keypoints declared."""
    wall = cv2.resize(np.random.default_rng(1).integers(90, 190, (20, 20, 3), np.uint8), (SIDE, SIDE))
    pixels, points = [], np.zeros((NUM_FRAMES, len(KEYPOINTS), 3), np.float32)
    for i, share in enumerate(opening):
        picture, x = wall.copy(), 70 + abs(i % 40 - 20)
        cv2.ellipse(picture, (x, 70), (30, 40), 0, 0, 360, (220, 180, 150), -1)
        cv2.ellipse(picture, (x, 87), (9, 1 + round(9 * share)), 0, 0, 360, (40, 10, 15), -1)
        pixels.append(picture)
        for name, px, py in (("nose", x, 74), ("left_eye", x + 13, 60), ("right_eye", x - 13, 60)):
            points[i, KEYPOINTS.index(name)] = px / SIDE, py / SIDE, 1
        for side, sign in (("left", 1), ("right", -1)):
            for joint, py in (("shoulder", 0.75), ("elbow", 0.85), ("wrist", wrist_y)):
                points[i, KEYPOINTS.index(f"{side}_{joint}")] = (x + sign * 40) / SIDE, py, 1
    return ClipContent(Frames(np.stack(pixels), SECONDS), sound, Keypoints(points, SECONDS), NUM_FRAMES / FPS, FPS)


def replaced(content: ClipContent, pixels: np.ndarray) -> ClipContent:
    frames = Frames(pixels.astype(np.uint8), content.frames.seconds)
    return ClipContent(frames, content.sound, content.keypoints, content.duration_seconds, content.fps)


@pytest.fixture(scope="module")
def clip() -> ClipContent:
    return talking(syllables(), voice(syllables()))


def test_a_good_clip(clip: ClipContent) -> None:
    found = values(clip)
    assert found["frozen_share"] == 0 and found["overlaid_text"] < 4 and found["lip_sync"] > 1.5
    assert found["speech_presence"] > 0.5 and found["pose_visibility"] == 1 and found["pose_jitter"] < 0.05
    assert found["face_size"] == pytest.approx(2.9 * 26 / SIDE, rel=0.01)


def test_blur_noise_and_darkness(clip: ClipContent) -> None:
    good = values(clip)
    blurred = values(replaced(clip, np.stack([cv2.GaussianBlur(p, (0, 0), 4) for p in clip.frames.pixels])))
    assert blurred["sharpness"] < 0.3 * good["sharpness"] and blurred["image_quality"] < 0.6 * good["image_quality"]
    dark = values(replaced(clip, clip.frames.pixels * 0.1))
    assert dark["brightness"] == pytest.approx(0.1 * good["brightness"], rel=0.1) and dark["black_share"] > 0.9
    faint = values(replaced(clip, 90 + clip.frames.pixels * 0.5))
    assert faint["sharpness"] == pytest.approx(good["sharpness"], rel=0.15)


def test_repeated_frames_are_counted_exactly(clip: ClipContent) -> None:
    still = clip.frames.pixels.copy()
    still[41:] = still[40]
    assert values(replaced(clip, still))["frozen_share"] == pytest.approx(19 / 59)


def test_frames_repeated_by_a_slow_source_are_not_frozen(clip: ClipContent) -> None:
    index = np.arange(NUM_FRAMES) // 2 * 2
    frames = Frames(clip.frames.pixels[index], SECONDS[index])
    slow = ClipContent(frames, clip.sound, clip.keypoints, clip.duration_seconds, clip.fps)
    assert values(slow)["frozen_share"] == 0


def test_text_is_told_from_a_still_background(clip: ClipContent) -> None:
    banner = clip.frames.pixels.copy()
    for picture in banner:
        picture[136:156] //= 5
        cv2.putText(picture, "BREAKING NEWS", (8, 150), cv2.FONT_HERSHEY_DUPLEX, 0.55, (255, 255, 255), 1, cv2.LINE_AA)
    assert values(replaced(clip, banner))["overlaid_text"] > 10
    striped = np.where((np.arange(SIDE) // 10 % 2 == 0)[None, None, :, None], 60, clip.frames.pixels)
    assert values(replaced(clip, striped))["overlaid_text"] < 4


@pytest.mark.parametrize("shift", [-8, -5, 6, 9])
def test_shifted_sound_gives_its_lag_with_the_sign_of_syncnet(shift: int) -> None:
    loudness = syllables()
    found = values(talking(np.roll(loudness, shift), voice(loudness)))  # a mouth that is late: the sound leads
    assert found["lip_sync_offset_frames"] == pytest.approx(shift, abs=1)
    assert found["lip_sync"] < 1.1


def test_lags_and_confidence() -> None:
    signal = np.random.default_rng(3).normal(size=80)
    value, offset = confidence(lagged_correlations(np.roll(signal, 1), signal))
    assert offset == 1 and value > 4
    assert confidence(np.zeros(31))[0] == 0


def test_silence_no_sound_and_no_pose(clip: ClipContent) -> None:
    silent = values(talking(syllables(), voice(np.zeros(NUM_FRAMES))))
    assert silent["speech_presence"] == 0 and silent["lip_sync"] == 0 and silent["lip_sync_offset_frames"] == "na"
    bare = values(ClipContent(clip.frames, None, None, clip.duration_seconds, clip.fps))
    for name in ("speech_presence", "lip_sync", "lip_sync_offset_frames", "pose_visibility", "pose_jitter"):
        assert bare[name] == "na"
    assert isinstance(bare["face_size"], float)


def test_noise_is_not_speech(clip: ClipContent) -> None:
    noise = Sound((0.1 * np.random.default_rng(0).normal(size=38400)).astype(np.float32), RATE)
    assert values(ClipContent(clip.frames, noise, clip.keypoints, 2.4, FPS))["speech_presence"] < 0.1


def test_hidden_hands_and_jitter(clip: ClipContent) -> None:
    assert values(talking(syllables(), None, wrist_y=1.1))["pose_visibility"] == 0
    assert clip.keypoints is not None
    shaken = clip.keypoints.points.copy()
    shaken[..., :2] += np.random.default_rng(0).normal(0, 0.03, shaken[..., :2].shape)
    pose = Keypoints(shaken, SECONDS)
    found = values(ClipContent(clip.frames, clip.sound, pose, clip.duration_seconds, clip.fps))
    assert found["pose_jitter"] > 0.1 and found["limb_variation"] > 0.05
