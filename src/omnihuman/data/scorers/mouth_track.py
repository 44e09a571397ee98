"""The mouth held still while the head moves: boxes of a detector for slow movement, optical flow for fast.

The detector's box jitters by some hundredths of the face from look to look, which is as much as lips move. The flow of
eyes and nose, which speech leaves alone, is smooth but drifts; so the detector corrects its slow part only.
"""

import cv2
import numpy as np

from omnihuman.data.scorers.face import FaceTrack, upright_patch

WIDTH, HEIGHT = 64, 56
"""Of a patch, in pixels."""
WIDTH_IN_EYE_DISTANCES = 1.7
MIDDLE_BELOW_EYES_IN_EYE_DISTANCES = 1.2
RIGID = (0.12, 0.18, 0.88, 0.66)
"""Left, top, right and bottom, in face heights, of what moves with the skull: brows to nose."""
DRIFT_FRAMES = 12.0
"""Standard deviation of the smoothing of the detector's correction."""
MAX_POINTS = 60
MIN_POINTS = 6


def mouth_patches(pixels: np.ndarray, grey: np.ndarray, face: FaceTrack) -> np.ndarray:
    """The mouth from nose to chin, upright, at one place and size in every frame.

    Args:
        pixels: uint8 [F, H, W, 3], RGB.
        grey: uint8 [F, H, W].
        face: with a face that was found.

    Returns:
        uint8 [F, 56, 64, 3], RGB.
    """
    eyes, roll, size = _steady(grey, face)
    patches = []
    for picture, at, angle, distance in zip(pixels, eyes, roll, size, strict=True):
        upright = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        turn = upright * (WIDTH_IN_EYE_DISTANCES * distance / WIDTH)
        middle = at + upright @ [0.0, MIDDLE_BELOW_EYES_IN_EYE_DISTANCES * distance]
        patches.append(upright_patch(picture, turn, middle, (WIDTH, HEIGHT)))
    return np.stack(patches)


def _steady(grey: np.ndarray, face: FaceTrack) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Point between the eyes [F, 2], roll in radians [F] and eye distance [F], smooth."""
    num_frames = len(grey)
    eyes, roll, growth = np.zeros((num_frames, 2)), np.zeros(num_frames), np.zeros(num_frames)
    eyes[0] = face.eyes[0]
    for i in range(1, num_frames):
        eyes[i] = eyes[i - 1] + face.eyes[i] - face.eyes[i - 1]
        roll[i], growth[i] = roll[i - 1] + face.roll[i] - face.roll[i - 1], growth[i - 1]
        step = _rigid_step(grey[i - 1], grey[i], face.eyes[i - 1], float(face.height[i - 1]))
        if step is not None:
            eyes[i] = step[:, :2] @ eyes[i - 1] + step[:, 2]
            roll[i] = roll[i - 1] + np.arctan2(step[1, 0], step[0, 0])
            growth[i] = growth[i - 1] + np.log(np.hypot(step[0, 0], step[1, 0]))
    eyes += _smooth(face.eyes - eyes, DRIFT_FRAMES)
    roll += np.median(face.roll - roll)
    growth -= _smooth(growth[:, None], 2 * DRIFT_FRAMES)[:, 0]
    return eyes, roll, np.median(face.eye_distance[face.found]) * np.exp(growth)


def _rigid_step(before: np.ndarray, after: np.ndarray, eyes: np.ndarray, height: float) -> np.ndarray | None:
    """Similarity [2, 3] that carries the upper face from one frame to the next, None where too little agrees."""
    corner = eyes - [height / 2, 0.4 * height]
    left, top, right, bottom = (np.tile(corner, 2) + height * np.array(RIGID)).astype(int)
    mask = np.zeros(before.shape, np.uint8)
    mask[max(0, top) : max(0, bottom), max(0, left) : max(0, right)] = 255
    points = cv2.goodFeaturesToTrack(before, MAX_POINTS, 0.01, max(2.0, 0.03 * height), mask=mask, blockSize=3)
    if points is None or len(points) < MIN_POINTS:
        return None
    side = max(7, int(0.12 * height)) | 1
    there, seen, _ = cv2.calcOpticalFlowPyrLK(before, after, points, points.copy(), winSize=(side, side), maxLevel=2)
    back, seen_back, _ = cv2.calcOpticalFlowPyrLK(after, before, there, there.copy(), winSize=(side, side), maxLevel=2)
    good = (seen.ravel() > 0) & (seen_back.ravel() > 0) & (np.abs(back - points).max(axis=(1, 2)) < 0.5)
    if good.sum() < MIN_POINTS:
        return None
    threshold = max(0.5, 0.01 * height)
    step, _ = cv2.estimateAffinePartial2D(points[good], there[good], method=cv2.RANSAC, ransacReprojThreshold=threshold)
    # A face does not grow by a quarter in 40 ms; a cut or a lost track does.
    return step if step is not None and 0.8 < np.hypot(step[0, 0], step[1, 0]) < 1.25 else None


def _smooth(values: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian mean over frames of [F, N]."""
    reach = int(3 * sigma)
    window = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    padded = np.pad(values, ((reach, reach), (0, 0)), mode="edge")
    return np.stack([np.convolve(column, window / window.sum(), "valid") for column in padded.T], axis=1)
