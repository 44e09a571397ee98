"""Does a video follow its driving pose? What moved in the real clip is found again in the generated one.

A stand-in for a pose estimator, without weights. Around each keypoint of the driving pose the real frame shows a hand,
a shoulder or a nose, and the reference picture at the same place something else: the pixels that differ are looked for
in the generated frame. The search area lies around the middle between the driving and the reference's position, and
both distances are measured from what was found: a match at random is as near to either.
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
_DIFFERS = 0.1
"""A pixel of the real frame belongs to what moved when a channel differs from the reference by this much of 0..1."""
_LEAST_MOVED = 0.08
"""Share of a patch that must have moved for it to be worth looking for."""


@dataclass(frozen=True)
class PoseError:
    """Mean keypoint distances over the picture's height."""

    to_driving: float  # from where the video has a keypoint to where the driving pose wants it
    to_reference: float  # from there to where the reference has it
    num_points: int

    @property
    def gain(self) -> float:
        """How much nearer to the driving pose than to the reference's."""
        return self.to_reference - self.to_driving


@dataclass(frozen=True)
class PoseScene:
    """What a pose-driven video is held against; pictures are float32 in 0..1."""

    driving: np.ndarray  # [F, K, 3], the pose to follow
    real: np.ndarray  # [F, H, W, 3], the clip that the pose comes from
    pose: np.ndarray  # [K, 3], keypoints in the reference picture
    reference: np.ndarray  # [H, W, 3]


def pose_error(video: np.ndarray, scene: PoseScene) -> PoseError | None:
    """Average keypoint distances of a video [F, H, W, 3]; None where no keypoint moves away from the reference."""
    height, width = scene.reference.shape[:2]
    scale = np.array([width, height]) * _ENLARGE
    reference = _enlarged(scene.reference)
    half = round(_PATCH_SHARE * reference.shape[0])
    distances = []
    for frame, real, points in zip(video, scene.real, scene.driving, strict=True):
        picture, real = _enlarged(frame), _enlarged(real)
        for index in _TRACKED:
            wanted, start = points[index, :2] * scale, scene.pose[index, :2] * scale
            moved = float(np.linalg.norm(wanted - start))
            hidden = min(points[index, 2], scene.pose[index, 2]) < 0.5
            if hidden or moved < _MOVED_SHARE * len(reference):
                continue
            patch, before = _crop(real, wanted, half), _crop(reference, wanted, half)
            if patch is None or before is None:
                continue
            found = _find(picture, patch, np.abs(patch - before).max(axis=2) > _DIFFERS, (wanted + start) / 2, moved)
            if found is not None:
                distances.append((np.linalg.norm(found - wanted), np.linalg.norm(found - start)))
    if not distances:
        return None
    to_driving, to_reference = np.mean(distances, axis=0) / len(reference)
    return PoseError(float(to_driving), float(to_reference), len(distances))


def _enlarged(frame: np.ndarray) -> np.ndarray:
    height, width = frame.shape[:2]
    return cv2.resize(frame.astype(np.float32), (width * _ENLARGE, height * _ENLARGE), interpolation=cv2.INTER_CUBIC)


def _find(
    picture: np.ndarray, patch: np.ndarray, moved: np.ndarray, centre: np.ndarray, distance: float
) -> np.ndarray | None:
    """Where the moved pixels of a patch lie in the picture, near `centre`; None where too few moved or out of frame."""
    margin = round(distance) + len(patch) // 2
    area = _crop(picture, centre, len(patch) // 2 + margin)
    if area is None or moved.mean() < _LEAST_MOVED:
        return None
    mask = np.repeat(moved[..., None].astype(np.float32), 3, axis=2)
    _, _, (x, y), _ = cv2.minMaxLoc(cv2.matchTemplate(area, patch, cv2.TM_SQDIFF, mask=mask))
    return np.add(centre.round(), (x - margin, y - margin))


def _crop(picture: np.ndarray, centre: np.ndarray, half: int) -> np.ndarray | None:
    """Square of side 2 half + 1, its surplus filled by the edge; None where the centre lies outside."""
    x, y = centre.round().astype(int)
    if not (0 <= x < picture.shape[1] and 0 <= y < picture.shape[0]):
        return None
    padded = cv2.copyMakeBorder(picture, half, half, half, half, cv2.BORDER_REPLICATE)
    return padded[y : y + 2 * half + 1, x : x + 2 * half + 1]
