"""Does a video follow its driving pose? Keypoints are found again by matching patches of the reference picture.

A stand-in for a pose estimator, without weights. The search area lies around the middle between the driving and the
reference's position, and both distances are measured from what was found: a match at random is as near to either.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from omnihuman.batch import KEYPOINTS

_TRACKED = [KEYPOINTS.index(n) for n in ("nose", "left_wrist", "right_wrist", "left_shoulder", "right_shoulder")]
_ENLARGE = 4
_PATCH_SHARE = 0.07
"""Half the side of a patch over the picture's height."""
_MOVED_SHARE = 0.04
"""A keypoint counts once the driving pose has left the reference's by this share of the height."""


@dataclass(frozen=True)
class PoseError:
    """Mean keypoint distances over the picture's height."""

    to_driving: float  # from where the video has a keypoint to where the driving pose wants it
    to_reference: float  # from there to where the reference has it
    num_points: int


def pose_error(video: np.ndarray, driving: np.ndarray, reference: np.ndarray, pose: np.ndarray) -> PoseError | None:
    """Average keypoint distances of a video to its driving pose and to the reference's pose.

    Args:
        video: float32 [F, H, W, 3] in 0..1.
        driving: float32 [F, K, 3], the pose that the video should follow.
        reference: float32 [H, W, 3], the picture.
        pose: float32 [K, 3], keypoints in the picture.

    Returns:
        None where no keypoint moves away from the reference.
    """
    height, width = reference.shape[:2]
    scale = np.array([width, height]) * _ENLARGE
    template = _enlarged(reference)
    to_driving, to_reference = [], []
    for frame, points in zip(video, driving, strict=True):
        picture = _enlarged(frame)
        for index in _TRACKED:
            if min(points[index, 2], pose[index, 2]) < 0.5:
                continue
            wanted, start = points[index, :2] * scale, pose[index, :2] * scale
            distance = float(np.linalg.norm(wanted - start)) / (height * _ENLARGE)
            if distance < _MOVED_SHARE:
                continue
            found = _find(picture, template, start, (wanted + start) / 2, distance * height * _ENLARGE)
            if found is not None:
                to_driving.append(float(np.linalg.norm(found - wanted)) / (height * _ENLARGE))
                to_reference.append(float(np.linalg.norm(found - start)) / (height * _ENLARGE))
    if not to_driving:
        return None
    return PoseError(float(np.mean(to_driving)), float(np.mean(to_reference)), len(to_driving))


def _enlarged(frame: np.ndarray) -> np.ndarray:
    height, width = frame.shape[:2]
    pixels = (frame * 255).round().astype(np.uint8)
    return cv2.resize(pixels, (width * _ENLARGE, height * _ENLARGE), interpolation=cv2.INTER_CUBIC)


def _find(
    picture: np.ndarray, template: np.ndarray, start: np.ndarray, centre: np.ndarray, distance: float
) -> np.ndarray | None:
    """Where the patch around `start` of the template lies in the picture, near `centre`; None outside of the frame."""
    half = round(_PATCH_SHARE * picture.shape[0])
    patch = _crop(template, start, half)
    margin = round(distance) + half
    area = _crop(picture, centre, half + margin)
    if patch is None or area is None:
        return None
    scores = cv2.matchTemplate(area, patch, cv2.TM_CCOEFF_NORMED)
    _, _, _, (x, y) = cv2.minMaxLoc(scores)
    return np.add(centre.round(), (x - margin, y - margin))


def _crop(picture: np.ndarray, centre: np.ndarray, half: int) -> np.ndarray | None:
    """Square of side 2 half + 1, its surplus filled by the edge; None where the centre lies outside."""
    x, y = centre.round().astype(int)
    if not (0 <= x < picture.shape[1] and 0 <= y < picture.shape[0]):
        return None
    padded = cv2.copyMakeBorder(picture, half, half, half, half, cv2.BORDER_REPLICATE)
    return padded[y : y + 2 * half + 1, x : x + 2 * half + 1]
