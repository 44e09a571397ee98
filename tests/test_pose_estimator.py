"""Whole-body poses by rtmlib on hand-made ONNX files with the published inputs and outputs."""

import sys
from pathlib import Path

import numpy as np
import pytest
from tests.tiny_onnx import node, write_model

from omnihuman.batch import KEYPOINTS, WHOLE_BODY_KEYPOINTS
from omnihuman.encoders.pose_estimator import WholeBodyEstimator, pose_estimator
from omnihuman.errors import UserError

SIDE = 64  # of the detector's input
POSE_HEIGHT, POSE_WIDTH = 64, 48
HEIGHT, WIDTH = 120, 200  # of the pictures
ANNA, BOB = (20.0, 30.0, 70.0, 110.0), (120.0, 20.0, 160.0, 90.0)  # left, top, right, bottom in their pixels
PERSON, CHAIR = 0, 56
NUM = len(WHOLE_BODY_KEYPOINTS)


def write_detector(path: Path, *rows: tuple[tuple[float, float, float, float], int, float, float]) -> None:
    """YOLOX without suppression: [1, positions, 85], boxes relative to a grid, at three strides.

    Each row is a box, its class, its confidence in a black picture, and how the logarithm of its size grows with the
    mean of the channel that is red in BGR.
    """
    ratio = min(SIDE / HEIGHT, SIDE / WIDTH)
    constant = np.zeros((1, sum((SIDE // stride) ** 2 for stride in (8, 16, 32)), 85), np.float32)
    growth = np.zeros_like(constant)
    for position, ((left, top, right, bottom), label, confidence, grows) in enumerate(rows):
        centre = ratio * (left + right) / 2 / 8 - position, ratio * (top + bottom) / 2 / 8
        size = np.log(ratio * (right - left) / 8), np.log(ratio * (bottom - top) / 8)
        constant[0, position, :5] = *centre, *size, 1.0
        constant[0, position, 5 + label] = confidence
        growth[0, position, 2:4] = grows
    weights = np.array([0, 0, 1 / 255], np.float32).reshape(1, 3, 1, 1)
    nodes = [
        node("Mul", ["input", "weights"], "red"),
        node("ReduceMean", ["red"], "mean", axes=[1, 2, 3], keepdims=1),
        node("Reshape", ["mean", "shape"], "flat"),
        node("Mul", ["flat", "growth"], "grown"),
        node("Add", ["grown", "constant"], "output"),
    ]
    constants = {"weights": weights, "shape": np.array([1, 1, 1]), "growth": growth, "constant": constant}
    write_model(path, nodes, constants, {"input": (1, 3, SIDE, SIDE)}, {"output": constant.shape})


def write_suppressed_detector(path: Path, box: tuple[float, float, float, float], confidence: float) -> None:
    """As in openmmlab's files: boxes in the input's pixels with their confidence, and labels beside them."""
    ratio = min(SIDE / HEIGHT, SIDE / WIDTH)
    constants = {
        "zero": np.zeros(1, np.float32),
        "boxes": np.array([[[*(ratio * np.array(box)), confidence]]], np.float32),
        "numbers": np.zeros((1, 1), np.float32),
    }
    nodes = [
        node("ReduceMean", ["input"], "mean", axes=[0, 1, 2, 3], keepdims=0),
        node("Mul", ["mean", "zero"], "nothing"),
        node("Add", ["nothing", "boxes"], "dets"),
        node("Add", ["nothing", "numbers"], "labels"),
    ]
    write_model(path, nodes, constants, {"input": (1, 3, SIDE, SIDE)}, {"dets": (1, 1, 5), "labels": (1, 1)})


def write_pose(path: Path, peaks: np.ndarray, confidence: np.ndarray) -> None:
    """SimCC responses [1, K, 2 W] and [1, K, 2 H] with one peak each, whatever the picture."""
    constants = {"zero": np.zeros(1, np.float32)}
    nodes = [
        node("ReduceMean", ["input"], "mean", axes=[0, 1, 2, 3], keepdims=0),
        node("Mul", ["mean", "zero"], "nothing"),
    ]
    outputs = {}
    for axis, (name, size) in enumerate((("simcc_x", POSE_WIDTH), ("simcc_y", POSE_HEIGHT))):
        response = np.zeros((1, len(peaks), 2 * size), np.float32)
        response[0, np.arange(len(peaks)), peaks[:, axis]] = confidence
        constants[f"{name}_response"] = response
        nodes.append(node("Add", ["nothing", f"{name}_response"], name))
        outputs[name] = response.shape
    write_model(path, nodes, constants, {"input": (1, 3, POSE_HEIGHT, POSE_WIDTH)}, outputs)


def write_reddest_place(path: Path) -> None:
    """A pose model that looks: all keypoints at the column and row of the crop that are the reddest, in RGB."""
    strength = (0.3 * (1 + np.arange(NUM)) / NUM).astype(np.float32).reshape(1, NUM, 1)
    constants: dict[str, np.ndarray] = {
        "red": np.array([1, 0, 0], np.float32).reshape(1, 3, 1, 1),
        "strength": strength,
        "row": np.array([1, 1, -1]),
    }
    nodes, outputs = [node("Mul", ["input", "red"], "reds")], {}
    for name, size, other in (("simcc_x", POSE_WIDTH, 2), ("simcc_y", POSE_HEIGHT, 3)):
        constants[f"{name}_twice"] = np.repeat(np.eye(size, dtype=np.float32), 2, axis=1)
        nodes += [
            node("ReduceMax", ["reds"], f"{name}_line", axes=[1, other], keepdims=0),
            node("MatMul", [f"{name}_line", f"{name}_twice"], f"{name}_fine"),
            node("Reshape", [f"{name}_fine", "row"], f"{name}_flat"),
            node("Mul", [f"{name}_flat", "strength"], name),
        ]
        outputs[name] = (1, NUM, 2 * size)
    write_model(path, nodes, constants, {"input": (1, 3, POSE_HEIGHT, POSE_WIDTH)}, outputs)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Anna and Bob in every picture, and a chair that is larger than both."""
    everywhere = (0.0, 0.0, float(WIDTH), float(HEIGHT))
    rows = ((ANNA, PERSON, 0.9, -1.0), (BOB, PERSON, 0.9, 1.0), (everywhere, CHAIR, 0.9, 0.0))
    write_detector(tmp_path / "yolox_l.onnx", *rows)
    write_reddest_place(tmp_path / "dw-ll_ucoco_384.onnx")
    return tmp_path


def crop_of(box: tuple[float, float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Corner and size of what the pose model sees: the box, a quarter larger, in the proportions of its input."""
    left, top, right, bottom = box
    width, height = 1.25 * (right - left), 1.25 * (bottom - top)
    width, height = max(width, height * POSE_WIDTH / POSE_HEIGHT), max(height, width * POSE_HEIGHT / POSE_WIDTH)
    size = np.array([width, height])
    return np.array([left + right, top + bottom]) / 2 - size / 2, size


def test_names_begin_with_the_body_and_are_133() -> None:
    assert WHOLE_BODY_KEYPOINTS[:17] == KEYPOINTS and len(set(WHOLE_BODY_KEYPOINTS)) == NUM == 133
    first = {17: "left_big_toe", 22: "right_heel", 23: "face_0", 90: "face_67", 91: "left_hand_root"}
    first |= {112: "right_hand_root", 95: "left_thumb_4", 132: "right_pinky_finger_4"}
    assert {place: WHOLE_BODY_KEYPOINTS[place] for place in first} == first


def test_known_peaks_come_back_at_their_places(tmp_path: Path) -> None:
    """Off the middle of a picture that is not square: the peaks of each keypoint, by hand through crop and box."""
    random = np.random.default_rng(0)
    peaks = np.stack([random.integers(0, 2 * POSE_WIDTH, NUM), random.integers(0, 2 * POSE_HEIGHT, NUM)], axis=1)
    confidence = random.uniform(0.1, 1.4, NUM).astype(np.float32)
    confidence[5] = 0.0
    write_detector(tmp_path / "yolox.onnx", (ANNA, PERSON, 0.9, 0.0))
    write_pose(tmp_path / "pose.onnx", peaks, confidence)
    found = pose_estimator(tmp_path).estimate(np.zeros((2, HEIGHT, WIDTH, 3), np.uint8))
    assert found.shape == (2, 133, 3) and found.dtype == np.float32
    corner, size = crop_of(ANNA)
    expected = (corner + peaks / 2 / (POSE_WIDTH, POSE_HEIGHT) * size) / (WIDTH, HEIGHT)
    seen = (confidence > 0) & (expected >= 0).all(axis=1) & (expected <= 1).all(axis=1)
    assert 60 < seen.sum() < NUM, "some fall outside of the picture"
    np.testing.assert_allclose(found[1, seen, :2], expected[seen], rtol=0, atol=1e-4)
    np.testing.assert_allclose(found[1, seen, 2], np.minimum(confidence[seen], 1), rtol=0, atol=1e-5)
    assert not found[:, ~seen].any() and not found[:, 5].any()


def picture(red: tuple[int, int], blue: tuple[int, int]) -> np.ndarray:
    """RGB with a red and a blue square around (x, y)."""
    frame = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for channel, (x, y) in ((0, red), (2, blue)):
        frame[y - 2 : y + 3, x - 2 : x + 3, channel] = 255
    return frame


def test_the_crop_shows_the_person_in_rgb(folder: Path) -> None:
    """A red spot is found, a blue one is not: the pose model sees red first."""
    estimator = pose_estimator(folder)
    for spot in ((30, 50), (60, 100)):
        found = estimator.estimate(picture(spot, (45, 70))[None])[0]
        np.testing.assert_allclose(found[:, :2] * (WIDTH, HEIGHT), np.tile(spot, (NUM, 1)), rtol=0, atol=4.0)
        assert (np.diff(found[:, 2]) > 0).all() and 0 < found[0, 2] < found[-1, 2] <= 1


def red(share: float) -> np.ndarray:
    """Bob grows and Anna shrinks with it."""
    return np.full((HEIGHT, WIDTH, 3), (round(255 * share), 0, 0), np.uint8)


def test_a_person_is_followed_though_another_becomes_larger(folder: Path, tmp_path: Path) -> None:
    write_pose(folder / "dw-ll_ucoco_384.onnx", np.full((NUM, 2), 48), np.ones(NUM, np.float32))
    estimator = pose_estimator(folder)
    anna, bob = ((np.array(box[:2]) + box[2:]) / 2 / (WIDTH, HEIGHT) for box in (ANNA, BOB))
    alone = estimator.estimate(red(1.0)[None])[0, 0, 0], estimator.estimate(red(0.0)[None])[0, 0, 0]
    assert abs(alone[0] - bob[0]) < 0.05 and abs(alone[1] - anna[0]) < 0.05, "the largest person, and never the chair"
    followed = estimator.estimate(np.stack([red(share) for share in (0.0, 0.5, 1.0)]))
    assert np.abs(followed[:, 0, 0] - anna[0]).max() < 0.05


def test_nobody_is_zeros(tmp_path: Path) -> None:
    write_pose(tmp_path / "pose.onnx", np.full((NUM, 2), 48), np.ones(NUM, np.float32))
    frames = np.zeros((2, HEIGHT, WIDTH, 3), np.uint8)
    for rows in (((ANNA, PERSON, 0.2, 0.0),), ((ANNA, CHAIR, 0.9, 0.0),), ()):
        write_detector(tmp_path / "yolox.onnx", *rows)
        assert not pose_estimator(tmp_path).estimate(frames).any()
    write_suppressed_detector(tmp_path / "yolox.onnx", ANNA, 0.2)
    assert not pose_estimator(tmp_path).estimate(frames).any()


def test_a_detector_with_suppression_in_its_file(tmp_path: Path) -> None:
    write_suppressed_detector(tmp_path / "yolox.onnx", BOB, 0.9)
    write_pose(tmp_path / "pose.onnx", np.full((NUM, 2), (POSE_WIDTH, POSE_HEIGHT)), np.ones(NUM, np.float32))
    estimator = WholeBodyEstimator(tmp_path / "yolox.onnx", tmp_path / "pose.onnx")
    middle = (np.array(BOB[:2]) + BOB[2:]) / 2 / (WIDTH, HEIGHT)
    found = estimator.estimate(np.zeros((1, HEIGHT, WIDTH, 3), np.uint8))
    np.testing.assert_allclose(found[0, :, :2], np.tile(middle, (NUM, 1)), rtol=0, atol=1e-3)
    assert len(estimator.sha256()) == 64


def test_wrong_files_are_named_and_nothing_is_downloaded(folder: Path, tmp_path: Path) -> None:
    detector, pose = folder / "yolox_l.onnx", folder / "dw-ll_ucoco_384.onnx"
    write_pose(tmp_path / "body.onnx", np.zeros((17, 2), int), np.ones(17, np.float32))
    (tmp_path / "broken.onnx").write_bytes(b"no onnx")
    cases = [
        (detector, folder / "none.onnx", "no pose weights at .*none.onnx: give .*yzd-v/DWPose"),
        (pose, pose, "no detector of the YOLOX kind"),
        (detector, detector, "no pose model with SimCC"),
        (detector, tmp_path / "body.onnx", "knows 17 keypoints, expected 133"),
        (detector, tmp_path / "broken.onnx", "broken.onnx cannot be loaded as ONNX"),
    ]
    for first, second, said in cases:
        with pytest.raises(UserError, match=said):
            WholeBodyEstimator(first, second)
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "dw-ll_ucoco.pth").touch()
    with pytest.raises(UserError, match=r"no \.onnx file beside pickles, which are not loaded \(dw-ll_ucoco\.pth\)"):
        pose_estimator(empty)
    with pytest.raises(UserError, match=r"float32 \[1, 4, 4, 3\] came, expected uint8"):
        WholeBodyEstimator(detector, pose).estimate(np.zeros((1, 4, 4, 3), np.float32))


def test_without_rtmlib_the_message_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rtmlib", None)
    with pytest.raises(UserError, match=r"pip install --no-deps -r requirements-no-deps\.lock"):
        pose_estimator(folder)
