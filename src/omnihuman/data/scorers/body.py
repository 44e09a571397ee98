"""What can be said from the face's size and from declared keypoints."""

import numpy as np

from omnihuman.batch import KEYPOINTS
from omnihuman.data.scorers.content import ClipContent, Measurement, Scorer, measured, not_applicable
from omnihuman.data.scorers.face import CONFIDENT

UPPER_BODY = [
    KEYPOINTS.index(f"{side}_{joint}") for joint in ("shoulder", "elbow", "wrist") for side in ("left", "right")
]
"""Left and right shoulder, elbow, wrist."""
UPPER_LIMBS = [(0, 2), (2, 4), (1, 3), (3, 5)]
"""Upper arms and forearms, as positions in `UPPER_BODY`."""
NO_KEYPOINTS = "no keypoints were declared"


def measure_face_size(content: ClipContent) -> tuple[Measurement, ...]:
    """Mean height of the face over the picture's; 0 where no frame shows one."""
    face, height = content.face, content.grey.shape[1]
    if not face.found.any():
        return (measured("face_size", 0.0, 0),)
    return (measured("face_size", float(face.height[face.found].mean() / height), face.num_found),)


def measure_pose_visibility(content: ClipContent) -> tuple[Measurement, ...]:
    """Share of frames in which shoulders, elbows and wrists are confident and inside the picture."""
    if content.points is None:
        return not_applicable(("pose_visibility",), NO_KEYPOINTS)
    joints = content.points[:, UPPER_BODY]
    inside = ((joints[..., :2] >= 0) & (joints[..., :2] <= 1)).all(axis=-1)
    visible = (inside & (joints[..., 2] >= CONFIDENT)).all(axis=1)
    return (measured("pose_visibility", float(np.mean(visible)), len(joints)),)


def measure_pose_stability(content: ClipContent) -> tuple[Measurement, ...]:
    """Jitter and change of limb lengths from frame to frame, in shoulder widths; both are low for a good track."""
    names = ("pose_jitter", "limb_variation")
    if content.points is None or content.keypoints is None:
        return not_applicable(names, NO_KEYPOINTS)
    first, last = content.frames.seconds[[0, -1]]
    times = content.keypoints.seconds
    span = content.keypoints.points[(times >= first - 1e-3) & (times <= last + 1e-3)][:, UPPER_BODY]
    if len(span) < 4:
        return not_applicable(names, "jitter needs a pose track of at least four frames")
    height, width = content.grey.shape[1:]
    joints = span[..., :2].astype(np.float64) * [width, height]
    seen = span[..., 2] >= CONFIDENT
    # A body that turns is narrow for a moment, so the widest moments count.
    shoulders = np.percentile(np.hypot(*(joints[:, 0] - joints[:, 1]).T), 75) + 1e-6
    shaking = np.hypot(*np.moveaxis(np.diff(joints, n=3, axis=0), -1, 0)) / shoulders
    known = np.stack([seen[i : len(seen) - 3 + i] for i in range(4)]).all(axis=0)
    lengths = np.stack([np.hypot(*(joints[:, a] - joints[:, b]).T) for a, b in UPPER_LIMBS], axis=1) / shoulders
    limbs_known = np.stack([seen[:, a] & seen[:, b] for a, b in UPPER_LIMBS], axis=1)
    changes = np.abs(np.diff(lengths, n=2, axis=0))
    changes_known = np.stack([limbs_known[i : len(seen) - 2 + i] for i in range(3)]).all(axis=0)
    if not known.any() or not changes_known.any():
        return not_applicable(names, "no joint of the arms is seen in four frames on end")
    return (
        measured(names[0], float(np.median(shaking[known])), int(known.sum())),
        measured(names[1], float(np.median(changes[changes_known])), int(changes_known.sum())),
    )


FACE_SIZE = Scorer(("face_size",), measure_face_size, "1")
POSE_VISIBILITY = Scorer(("pose_visibility",), measure_pose_visibility, "1")
POSE_STABILITY = Scorer(("pose_jitter", "limb_variation"), measure_pose_stability, "1")
