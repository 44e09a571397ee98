"""Poses from JSON, from drawn skeletons and from videos, and brought to another person's proportions."""

import json
import logging
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from tests.skeletons import draw_skeleton
from tests.test_pose_estimator import ANNA, PERSON, write_detector, write_reddest_place
from tests.test_pose_estimator import HEIGHT as ESTIMATOR_HEIGHT
from tests.test_pose_estimator import WIDTH as ESTIMATOR_WIDTH
from tests.tiny import ENCODERS

from omnihuman.batch import KEYPOINTS, WHOLE_BODY_KEYPOINTS, Keypoints
from omnihuman.errors import UserError
from omnihuman.inference.pose_inputs import (
    PoseTrack,
    driving_keypoints,
    num_frames_of,
    read_pose,
    track_video,
    warn_of_other_length,
)
from omnihuman.inference.pose_json import BODY_25, COCO_18, read_pose_json
from omnihuman.inference.request import InputOptions
from omnihuman.inference.retarget import PARENTS, placed, retarget
from omnihuman.inference.skeleton_video import is_skeleton

MEDIA = Path(__file__).parents[2] / "shared" / "media"
OPTIONS = InputOptions()
WIDTH, HEIGHT = 320, 480
INDEX = {name: number for number, name in enumerate(WHOLE_BODY_KEYPOINTS)}
STANDING = {
    "nose": (0.5, 0.14), "left_eye": (0.53, 0.12), "right_eye": (0.47, 0.12), "left_ear": (0.58, 0.13),
    "right_ear": (0.42, 0.13), "left_shoulder": (0.64, 0.25), "right_shoulder": (0.36, 0.25),
    "left_elbow": (0.74, 0.38), "right_elbow": (0.26, 0.38), "left_wrist": (0.8, 0.5), "right_wrist": (0.2, 0.5),
    "left_hip": (0.58, 0.53), "right_hip": (0.42, 0.53), "left_knee": (0.6, 0.73), "right_knee": (0.4, 0.73),
    "left_ankle": (0.61, 0.92), "right_ankle": (0.39, 0.92),
}  # fmt: skip


def standing(count: int = 17) -> np.ndarray:
    """[count, 3]; the feet, the face and the hands lie near their joints."""
    points = np.zeros((count, 3), np.float32)
    for name, place in STANDING.items():
        points[INDEX[name]] = (*place, 1.0)
    random = np.random.default_rng(0)
    for joint in range(17, count):
        parent = PARENTS[joint + 2] - 2
        points[joint] = (*(points[parent, :2] + random.uniform(-0.02, 0.02, 2)), 0.9)
    return points


def moving(num_frames: int = 12, count: int = 17) -> np.ndarray:
    """A rigid skeleton whose limbs turn and which walks: [F, count, 3] in shares of WIDTH x HEIGHT."""
    random = np.random.default_rng(1)
    start = np.vstack([np.zeros((2, 3)), standing(count)]) * (WIDTH / HEIGHT, 1, 1)
    start[0], start[1] = start[[7, 8]].mean(axis=0), start[[13, 14]].mean(axis=0)
    turns = random.uniform(-0.3, 0.3, len(start))
    turns[[7, 8, 13, 14]] = 0  # shoulders and hips stay opposite each other
    frames = []
    for frame in range(num_frames):
        now = start.copy()
        now[0, :2] += (0.004 * frame, 0.002 * frame)
        for joint, parent in PARENTS.items():
            if joint < len(start):
                angle = turns[joint] * np.sin(frame / 2)
                turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
                now[joint, :2] = now[parent, :2] + turn @ (start[joint, :2] - start[parent, :2])
        frames.append(now[2:] / (WIDTH / HEIGHT, 1, 1))
    return np.stack(frames).astype(np.float32)


def bones(points: np.ndarray, aspect: float) -> dict[tuple[str, str], np.ndarray]:
    """Vectors [F, 2] of the limbs in heights of the canvas."""
    pairs = [
        (f"{side}_{first}", f"{side}_{second}")
        for side in ("left", "right")
        for first, second in (("shoulder", "elbow"), ("elbow", "wrist"), ("hip", "knee"), ("knee", "ankle"))
    ]
    pairs += [("left_shoulder", "right_shoulder"), ("left_hip", "right_hip"), ("nose", "left_eye")]
    even = points[..., :2] * (aspect, 1)
    return {(a, b): even[:, INDEX[b]] - even[:, INDEX[a]] for a, b in pairs}


@pytest.mark.parametrize("count", [17, 133])
@pytest.mark.parametrize("frame", [0, 7])
def test_equal_proportions_change_nothing(count: int, frame: int) -> None:
    points, aspect = moving(count=count), WIDTH / HEIGHT
    np.testing.assert_allclose(retarget(points, aspect, points[frame], aspect), points, atol=2e-6)


def test_bones_take_the_persons_lengths_and_keep_their_directions() -> None:
    points, aspect, other = moving(), WIDTH / HEIGHT, 1.25
    person = standing()
    person[:, :2] = (person[:, :2] - 0.5) * (0.45, 0.7) + (0.55, 0.6)
    person[INDEX["left_wrist"], :2] += (0.05, 0.1)
    person[INDEX["right_ankle"], 1] -= 0.05
    result = retarget(points, aspect, person, other)
    wanted, before, after = (bones(p, a) for p, a in ((person[None], other), (points, aspect), (result, other)))
    for name, vectors in after.items():
        lengths = np.linalg.norm(vectors, axis=1)
        np.testing.assert_allclose(lengths, np.linalg.norm(wanted[name][0]), rtol=1e-4, err_msg=str(name))
        directions = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (vectors, before[name]))
        np.testing.assert_allclose(*directions, atol=1e-4, err_msg=str(name))


def test_whoever_walks_walks_as_far_in_their_own_size() -> None:
    points, aspect = moving(), WIDTH / HEIGHT
    person = points[0].copy()
    person[:, :2] = (person[:, :2] - 0.5) * 0.5 + (0.4, 0.5)
    result = retarget(points, aspect, person, aspect)
    neck = lambda track: track[:, 5:7, :2].mean(axis=1)  # noqa: E731
    np.testing.assert_allclose(neck(result) - neck(result)[0], 0.5 * (neck(points) - neck(points)[0]), atol=1e-5)
    np.testing.assert_allclose(result[0], person, atol=1e-5)


def test_joints_that_are_missing_stay_missing_and_pull_nobody_to_the_corner() -> None:
    points, aspect = moving(), WIDTH / HEIGHT
    whole = retarget(points, aspect, points[0], aspect)
    points[3:, INDEX["left_elbow"]] = 0
    points[5, INDEX["left_shoulder"]] = 0
    result = retarget(points, aspect, points[0], aspect)
    assert (result[3:, INDEX["left_elbow"], 2] == 0).all()
    kept = np.r_[3:5, 6:12]
    np.testing.assert_allclose(result[kept, INDEX["left_wrist"]], whole[kept, INDEX["left_wrist"]], atol=2e-6)
    assert (result[5, :, 2] == 0).all(), "without a neck nothing says where to stand"
    person = points[0].copy()
    person[INDEX["left_hip"] :] = 0
    half = retarget(moving(), aspect, person, aspect)
    np.testing.assert_allclose(half, whole, atol=2e-6), "what the picture does not show is scaled as the rest"


def test_without_the_pose_in_the_picture_the_canvas_is_placed_whole() -> None:
    points = np.array([[[0.0, 0.0, 1.0], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]], np.float32)
    tall = placed(points, 0.5, 1.0)
    np.testing.assert_allclose(tall[0, :2, :2], [[0.25, 0.0], [0.75, 1.0]])
    np.testing.assert_allclose(placed(points, 2.0, 1.0)[0, :2, :2], [[0.0, 0.25], [1.0, 0.75]])
    np.testing.assert_array_equal(placed(points, 1.0, 1.0), points)
    assert tall[0, 2, 2] == 0


def openpose(points: np.ndarray, order: tuple[int, ...], size: int, scale: tuple[int, int]) -> list[float]:
    body = np.zeros((size, 3))
    body[list(order)] = points[: len(order)] * (*scale, 1)
    return body.ravel().tolist()


def person(points: np.ndarray, order: tuple[int, ...], size: int) -> dict[str, Any]:
    """As OpenPose writes one of 133 keypoints."""
    told: dict[str, Any] = {"pose_keypoints_2d": openpose(points, order, size, (WIDTH, HEIGHT))}
    places = points * (WIDTH, HEIGHT, 1)
    face = np.vstack([places[23:91], np.zeros((2, 3))])
    parts = {"face": face, "hand_left": places[91:112], "hand_right": places[112:133]}
    return told | {f"{name}_keypoints_2d": part.ravel().tolist() for name, part in parts.items()}


def test_openpose_in_one_file_a_folder_and_with_a_canvas(tmp_path: Path) -> None:
    points = moving(4, 133)
    points[2, INDEX["left_wrist"]] = 0
    small = {"pose_keypoints_2d": (np.array(openpose(points[0] * 0.2, BODY_25, 25, (WIDTH, HEIGHT)))).tolist()}
    frames = [{"version": 1.3, "people": [small, person(frame, BODY_25, 25)]} for frame in points]
    canvas = {"canvas_width": WIDTH, "canvas_height": HEIGHT}
    (tmp_path / "list.json").write_text(json.dumps([frame | canvas for frame in frames]))
    folder = tmp_path / "a b"
    folder.mkdir()
    for number, frame in zip((0, 1, 3, 4), frames, strict=True):
        (folder / f"clip_{number:012d}_keypoints.json").write_text(json.dumps(frame))
    whole = read_pose_json(tmp_path / "list.json", (0, 0))
    np.testing.assert_allclose(whole.points, points, atol=1e-6)
    assert whole.aspect == WIDTH / HEIGHT and whole.points[2, INDEX["left_wrist"]].tolist() == [0, 0, 0]
    apart = read_pose_json(folder, (WIDTH, HEIGHT))
    np.testing.assert_allclose(apart.points, points, atol=1e-6)
    assert apart.frames.tolist() == [0, 1, 3, 4], "a frame that is not there is a gap in time"
    track = read_pose(folder, replace(OPTIONS, pose_width=WIDTH, pose_height=HEIGHT, pose_fps=30.0))
    np.testing.assert_allclose(track.keypoints.seconds, np.array([0, 1, 3, 4]) / 30)


def test_coco_18_shares_and_null_parts(tmp_path: Path) -> None:
    """As ControlNet and ComfyUI dump DWPose: eighteen joints, null where there is no hand, at times as shares."""
    points = moving(3)
    frames = [
        {
            "people": [
                {
                    "pose_keypoints_2d": openpose(frame, COCO_18, 18, (1, 1)),
                    "face_keypoints_2d": None, "hand_left_keypoints_2d": None, "hand_right_keypoints_2d": [],
                }
            ],
            "animals": [], "canvas_width": WIDTH, "canvas_height": HEIGHT,
        }
        for frame in points
    ]  # fmt: skip
    (tmp_path / "a.json").write_text(json.dumps(frames))
    read = read_pose_json(tmp_path / "a.json", (0, 0)).points
    np.testing.assert_allclose(read[:, :17], points, atol=1e-6)
    assert (read[:, 17:] == 0).all()


def test_mmpose_and_a_person_followed_past_others(tmp_path: Path) -> None:
    points = moving(5, 133)
    other = points.copy()
    other[..., 0] = other[..., 0] * 0.3 + 0.02
    other[3, ..., :2] = points[3, ..., :2] * 1.4  # larger for a moment

    def instance(frame: np.ndarray) -> dict[str, Any]:
        return {
            "keypoints": (frame[:, :2] * (WIDTH, HEIGHT)).tolist(),
            "keypoint_scores": (frame[:, 2] * 1.2).tolist(),
            "bbox": [[0, 0, 1, 1]],
        }

    told = [
        {"frame_id": number + 1, "instances": [instance(second), instance(first)]}
        for number, (first, second) in enumerate(zip(points, other, strict=True))
    ]
    told[4]["instances"] = []
    (tmp_path / "a.json").write_text(
        json.dumps({"meta_info": {"dataset_name": "coco_wholebody"}, "instance_info": told})
    )
    read = read_pose_json(tmp_path / "a.json", (WIDTH, HEIGHT)).points
    np.testing.assert_allclose(read[:4, :, :2], points[:4, :, :2], atol=1e-6)
    assert read[..., 2].max() == 1.0 and (read[4] == 0).all()


def test_json_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    body = openpose(standing(), COCO_18, 18, (WIDTH, HEIGHT))
    cases: list[tuple[Any, str]] = [
        ("{", "no JSON"), ([], "holds no frame"), ({"a": 1}, "neither OpenPose"), ([1], "neither OpenPose"),
        ({"people": []}, "shows nobody"), ({"people": [{"pose_keypoints_2d": body}]}, "give --pose-size"),
        ({"people": [{"pose_keypoints_2d": body[:-3]}]}, "expected 25 or 18"),
        ({"people": [{"pose_keypoints_2d": body[:-1]}]}, "neither OpenPose"),
        ({"people": [{"pose_keypoints_2d": [float("nan")] * 2 + [1.0] + body[3:]}]}, "not finite"),
        ([{"instances": [{"keypoints": [[1, 2]], "keypoint_scores": [1]}]}], "expected 17 or 133"),
    ]  # fmt: skip
    path = tmp_path / "a.json"
    for told, message in cases:
        path.write_text(told if isinstance(told, str) else json.dumps(told))
        with pytest.raises(UserError, match=message):
            read_pose(path, OPTIONS)
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="holds no files"):
        read_pose(tmp_path / "folder", OPTIONS)


def write_pictures(path: Path, pictures: list[np.ndarray], fps: int, crf: int = 23) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps), options={"crf": str(crf)})
        stream.height, stream.width, stream.pix_fmt = *pictures[0].shape[:2], "yuv420p"
        for pixels in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def drawn(points: np.ndarray) -> np.ndarray:
    """[17, 3] of COCO as a skeleton of eighteen joints."""
    joints = np.zeros((18, 3))
    joints[list(COCO_18)] = points
    joints[1] = points[5:7].mean(axis=0)
    return draw_skeleton(joints, WIDTH, HEIGHT)


def test_a_drawn_skeleton_is_read_back_through_h264(tmp_path: Path) -> None:
    points = moving(20)
    track = track_video(OPTIONS, write_pictures(tmp_path / "a.mp4", [drawn(frame) for frame in points], 25))
    found = track.keypoints.points
    assert found.shape == points.shape and track.aspect == WIDTH / HEIGHT
    seen = found[..., 2] > 0
    assert seen.mean() > 0.97
    error = np.linalg.norm((found - points)[..., :2] * (WIDTH / HEIGHT, 1), axis=-1)[seen]
    assert np.mean(error) < 0.003 and np.percentile(error, 99) < 0.008, (error.mean(), np.percentile(error, 99))


def test_a_skeleton_at_another_rate_is_taken_by_its_times(tmp_path: Path) -> None:
    points = moving(31)
    track = track_video(OPTIONS, write_pictures(tmp_path / "a.mp4", [drawn(frame) for frame in points], 30))
    assert num_frames_of(track, 25.0) == 26 and abs(track.keypoints.seconds[-1] - 1.0) < 0.04
    keypoints = driving_keypoints(track, 26, ENCODERS, None, WIDTH / HEIGHT, OPTIONS)
    for frame, expected in ((0, 0), (10, 12), (20, 24), (25, 30)):
        both = keypoints[frame, :, 2] > 0
        np.testing.assert_allclose(keypoints[frame, both, :2], points[expected, both, :2], atol=0.03)


def test_a_pose_shorter_or_longer_than_the_sound(caplog: pytest.LogCaptureFixture) -> None:
    points = moving(10)
    track = PoseTrack(Keypoints(points, np.arange(10) / 25), 0.0)
    held = driving_keypoints(track, 15, ENCODERS, None, 1.0, OPTIONS)
    np.testing.assert_allclose(held[:10], points, atol=1e-6)
    assert (held[10:] == held[9]).all()
    np.testing.assert_array_equal(driving_keypoints(track, 4, ENCODERS, None, 1.0, OPTIONS), held[:4])
    caplog.set_level(logging.WARNING)
    warn_of_other_length(track, 15, 25.0, Path("p.npz"))
    assert "its last moment is held" in caplog.text
    warn_of_other_length(track, 4, 25.0, Path("p.npz"))
    assert "the rest is left out" in caplog.text
    caplog.clear()
    warn_of_other_length(track, 11, 25.0, Path("p.npz"))
    assert not caplog.text


def test_a_video_of_a_person_needs_weights(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    path = write_pictures(tmp_path / "a.mp4", list(random.integers(0, 255, (6, 64, 64, 3), np.uint8)), 25)
    with pytest.raises(UserError, match="--pose-weights FOLDER"):
        track_video(OPTIONS, path)
    with pytest.raises(UserError, match="expected one detector"):
        track_video(replace(OPTIONS, pose_weights=str(tmp_path)), path)
    black = write_pictures(tmp_path / "black.mp4", [np.zeros((64, 64, 3), np.uint8)] * 6, 25)
    with pytest.raises(UserError, match="--pose-weights FOLDER"):
        track_video(OPTIONS, black)


def test_the_pose_of_a_person_is_estimated_where_weights_are_given(tmp_path: Path) -> None:
    """With networks of the published layout that find the reddest place in the box of a person."""
    write_detector(tmp_path / "yolox_l.onnx", (ANNA, PERSON, 0.9, -1.0))
    write_reddest_place(tmp_path / "dw-ll_ucoco_384.onnx")
    left, top, right, bottom = ANNA
    place = np.array([(left + right) / 2, top + 0.3 * (bottom - top)])
    picture = np.full((ESTIMATOR_HEIGHT, ESTIMATOR_WIDTH, 3), 90, np.uint8)
    x, y = place.astype(int)
    picture[y - 4 : y + 5, x - 4 : x + 5] = (255, 0, 0)
    options = replace(OPTIONS, pose_weights=str(tmp_path))
    track = track_video(options, write_pictures(tmp_path / "a.mp4", [picture] * 6, 50, crf=10))
    points = track.keypoints.points
    assert points.shape == (3, 133, 3), "no more than 25 pictures a second are looked at"
    wanted = place / (ESTIMATOR_WIDTH, ESTIMATOR_HEIGHT)
    assert np.abs(points[..., :2][points[..., 2] > 0] - wanted).max() < 0.06 and points[..., 2].any()
    with pytest.raises(UserError, match="has the hash"):
        track_video(replace(options, pose_sha256="0" * 64), tmp_path / "a.mp4")


@pytest.mark.slow
@pytest.mark.skipif(not MEDIA.is_dir(), reason="shared/media with real skeletons and people is not here")
def test_real_skeletons_are_told_from_people_and_read() -> None:
    for path in sorted(MEDIA.glob("pose/*.mp4")):
        track = track_video(OPTIONS, path)
        points, seconds = track.keypoints.points, track.keypoints.seconds
        assert len(seconds) == pytest.approx(25 * seconds[-1] + 1, abs=2)
        limbs = [
            KEYPOINTS.index(f"{side}_{name}") for side in ("left", "right") for name in ("shoulder", "hip", "knee")
        ]
        assert (points[:, limbs, 2] > 0).mean() > 0.97
        moved = np.linalg.norm(np.diff(points[:, limbs, :2], axis=0), axis=-1)
        assert np.percentile(moved, 99) < 0.06, "no joint is mistaken for another between two frames"
    for path in sorted([*MEDIA.glob("talk/*.mp4"), *MEDIA.glob("body/*.mp4")]):
        with av.open(str(path)) as container:
            first = next(container.decode(video=0)).to_ndarray(format="rgb24")
        assert not is_skeleton(first), path
