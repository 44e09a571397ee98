"""Hands and pose from keypoints, whoever found them: HKC, HKV and AKD.

No formula, detector or threshold is published for the paper's HKC and HKV (OmniHuman-1, sec. 4.1). Here: HKC is the
mean confidence of all hand keypoints in all frames. HKV is the variance of each hand keypoint's place over time, x and
y added, over the frames in which its confidence reaches `CONFIDENT`, and its mean over keypoints; in pixels at a fixed
height, or in shoulder widths. AKD is the mean distance to the driving pose, in pixels at that height.
"""

from dataclasses import dataclass

import numpy as np

from omnihuman.batch import KEYPOINTS

CONFIDENT = 0.3
"""DWPose's own threshold for drawing a keypoint."""
HEIGHT = 512
"""Pixels, to which the picture's height is brought: variances of videos of several sizes would not compare."""
FEWEST_FRAMES = 5
"""In which a keypoint has to be seen for its variance to say something."""
SHOULDERS = [KEYPOINTS.index("left_shoulder"), KEYPOINTS.index("right_shoulder")]


@dataclass(frozen=True)
class Found:
    """Keypoints of a video; x and y are shares of width and height, confidence 0..1."""

    body: np.ndarray  # float [F, K, 3], K the 17 of COCO or the 133 of COCO-WholeBody; not seen: confidence 0
    hands: np.ndarray  # float [F, N, 3]
    shoulder_width: float | None  # share of the picture's height; None where shoulders are not seen


def hand_confidence(found: Found) -> float:
    """HKC, 0..1."""
    return float(found.hands[..., 2].mean())


def hand_variance(found: Found, height: int, width: int) -> float | None:
    """HKV in square pixels at 512 pixels of height; None where no keypoint is seen in five frames.

    Args:
        height, width: of the video, in pixels.
    """
    places = found.hands[..., :2] * [HEIGHT * width / height, HEIGHT]
    seen = found.hands[..., 2] >= CONFIDENT
    variances = [
        places[seen[:, point], point].var(axis=0).sum()
        for point in range(seen.shape[1])
        if seen[:, point].sum() >= FEWEST_FRAMES
    ]
    return float(np.mean(variances)) if variances else None


def hand_variance_in_shoulders(found: Found, height: int, width: int) -> float | None:
    """HKV over the square of the shoulders' width, which neither zoom nor cropping changes."""
    variance = hand_variance(found, height, width)
    if variance is None or not found.shoulder_width:
        return None
    return float(variance / (HEIGHT * found.shoulder_width) ** 2)


def shoulder_width(body: np.ndarray, height: int, width: int) -> float | None:
    """Of keypoints [F, K, 3], as a share of the height; None where both shoulders are seen in no frame.

    A body that turns is narrow for a moment, so the width is the 75th percentile over frames.
    """
    both = body[(body[:, SHOULDERS, 2] >= CONFIDENT).all(axis=1)][:, SHOULDERS, :2]
    if not len(both):
        return None
    apart = (both[:, 0] - both[:, 1]) * [width / height, 1]
    return float(np.percentile(np.linalg.norm(apart, axis=1), 75))


def keypoint_distance(found: Found, driving: np.ndarray, height: int, width: int) -> float | None:
    """AKD in pixels at 512 pixels of height, over keypoints that both are sure of; None where there are none.

    Args:
        driving: float [F, K, 3]; with 17 keypoints on one side and 133 on the other the 17 of the body count.
    """
    both = min(driving.shape[1], found.body.shape[1])
    ours, wanted = found.body[:, :both], driving[:, :both]
    seen = np.minimum(ours[..., 2], wanted[..., 2]) >= CONFIDENT
    apart = (ours[..., :2] - wanted[..., :2]) * [HEIGHT * width / height, HEIGHT]
    return float(np.linalg.norm(apart, axis=-1)[seen].mean()) if seen.any() else None
