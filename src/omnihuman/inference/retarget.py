"""A driving pose with the proportions of another person.

Each bone keeps its direction from frame to frame and takes the length that it has in the picture, from the neck
outwards along the tree of joints. The neck moves as the driver's does, scaled as a whole. What the lengths are
compared with is the driver's frame whose pose is most like that in the picture: there foreshortening is alike, and for
a driver who is the person in the picture nothing changes. (Wan-Animate and UniAnimate compare with the first frame,
which may show anything.)
"""

import numpy as np

from omnihuman.batch import KEYPOINTS, WHOLE_BODY_KEYPOINTS

_SEEN = 0.3
"""Confidence from which a joint is believed."""
_MOST = 2.5
"""Between a bone's own scale and that of the whole; beyond it a joint was found wrongly, or a limb points to the
camera."""
_NECK, _PELVIS = 0, 1
"""Of the joints below; they lie between the shoulders and between the hips. COCO's follow them."""
_VIRTUAL = 2


def _joint(name: str) -> int:
    return _VIRTUAL + WHOLE_BODY_KEYPOINTS.index(name)


def _tree() -> dict[int, int]:
    """The parent of each joint, parents first; the neck has none."""
    pairs: list[tuple[int, int]] = [(_PELVIS, _NECK), (_joint("nose"), _NECK)]
    for side in ("left", "right"):
        chain = (
            ("shoulder", _NECK), ("elbow", f"{side}_shoulder"), ("wrist", f"{side}_elbow"),
            ("hip", _PELVIS), ("knee", f"{side}_hip"), ("ankle", f"{side}_knee"),
            ("eye", "nose"), ("ear", f"{side}_eye"),
            *((toe, f"{side}_ankle") for toe in ("big_toe", "small_toe", "heel")),
            ("hand_root", f"{side}_wrist"),
        )  # fmt: skip
        pairs += [(_joint(f"{side}_{name}"), up if isinstance(up, int) else _joint(up)) for name, up in chain]
        root = _joint(f"{side}_hand_root")
        pairs += [(root + 1 + place, root + place if place % 4 else root) for place in range(20)]
    pairs += [(_joint(f"face_{number}"), _joint("nose")) for number in range(68)]
    return dict(pairs)


PARENTS = _tree()


def retarget(points: np.ndarray, aspect: float, person: np.ndarray, person_aspect: float) -> np.ndarray:
    """The driver's pose with the lengths of a person's bones, standing where that person stands.

    Args:
        points: the driver's, [F, K, 3], in shares of a canvas of width over height `aspect`; K is 17 or 133.
        person: pose in the picture, [K, 3], in shares of one of `person_aspect`.

    Returns:
        float32 [F, K, 3] in shares of the picture. A frame without the driver's neck (or nose, where a neck is not
        seen in both) has no confidence at all. Where the two cannot be compared, the pose is as `placed` gives it.
    """
    driver, wanted = _with_middles(points, aspect), _with_middles(person[None], person_aspect)[0]
    root = next((joint for joint in (_NECK, _joint("nose")) if _both(driver, wanted, joint).any()), None)
    if root is None:
        return placed(points, aspect, person_aspect)
    parents = _parents_from(root, driver.shape[1])
    alike = _frames_by_likeness(driver, wanted, parents, _both(driver, wanted, root))
    scale, lengths = _lengths(driver, wanted, parents, alike)
    moved = np.zeros_like(driver)
    moved[..., 2] = driver[..., 2] * (driver[:, root, 2:] > 0)
    moved[:, root, :2] = wanted[root, :2] + scale * (driver[:, root, :2] - driver[alike[0], root, :2])
    for joint, parent in parents.items():
        moved[:, joint, :2] = _child(driver, moved, joint, parent, parents, lengths[joint], scale)
    result = moved[:, _VIRTUAL:]
    result[..., :2] /= (person_aspect, 1.0)
    return np.where(result[..., 2:] > 0, result, 0.0).astype(np.float32)


def placed(points: np.ndarray, aspect: float, picture_aspect: float) -> np.ndarray:
    """The driver's whole canvas in the middle of the picture, as large as it fits, its shape kept."""
    scale = np.array([min(1.0, aspect / picture_aspect), min(1.0, picture_aspect / aspect)])
    result = points.astype(np.float32)
    result[..., :2] = ((points[..., :2] - 0.5) * scale + 0.5) * (points[..., 2:] > 0)
    return result


def _with_middles(points: np.ndarray, aspect: float) -> np.ndarray:
    """float64 [F, 2 + K, 3] in heights of the canvas, with neck and pelvis before the others."""
    even = points.astype(np.float64) * (aspect, 1.0, 1.0)
    middles = []
    for name in ("shoulder", "hip"):
        pair = even[:, [KEYPOINTS.index(f"left_{name}"), KEYPOINTS.index(f"right_{name}")]]
        middle = pair.mean(axis=1)
        middle[:, 2] = pair[..., 2].min(axis=1)
        middles.append(middle)
    return np.concatenate([np.stack(middles, axis=1), even], axis=1)


def _both(driver: np.ndarray, wanted: np.ndarray, joint: int) -> np.ndarray:
    """bool [F]: the frames in which a joint is seen in both."""
    return (driver[:, joint, 2] >= _SEEN) & (wanted[joint, 2] >= _SEEN)


def _parents_from(root: int, count: int) -> dict[int, int]:
    """The tree with another root; parents come first."""
    links: dict[int, list[int]] = {}
    for child, parent in PARENTS.items():
        if child < count and parent < count:
            links.setdefault(child, []).append(parent)
            links.setdefault(parent, []).append(child)
    ordered, parents = [root], {}
    for joint in ordered:
        for other in links[joint]:
            if other != root and other not in parents:
                parents[other] = joint
                ordered.append(other)
    return parents


def _frames_by_likeness(
    driver: np.ndarray, wanted: np.ndarray, parents: dict[int, int], usable: np.ndarray
) -> np.ndarray:
    """Frames, from that whose bones point most as the person's do; only body bones count."""
    difference, number = np.zeros(len(driver)), np.zeros(len(driver))
    for joint, parent in parents.items():
        if max(joint, parent) >= _VIRTUAL + len(KEYPOINTS):
            continue
        both = _both(driver, wanted, joint) & _both(driver, wanted, parent)
        towards, aim = driver[:, joint, :2] - driver[:, parent, :2], wanted[joint, :2] - wanted[parent, :2]
        length = np.linalg.norm(towards, axis=1) * np.linalg.norm(aim)
        difference += both * (1 - (towards @ aim) / np.maximum(length, 1e-9))
        number += both
    difference = np.where(number > 0, difference / np.maximum(number, 1), 2.0)
    # Frames that show more bones are the better to compare with.
    order = np.lexsort((difference - 0.5 * number / max(1.0, number.max()), ~usable))
    return order[: max(1, int(usable.sum()))]


def _lengths(
    driver: np.ndarray, wanted: np.ndarray, parents: dict[int, int], alike: np.ndarray
) -> tuple[float, dict[int, float]]:
    """The scale of the whole, and that of each bone, by the joint at its end."""
    own: dict[int, float] = {}
    squares = np.zeros(2)
    for joint, parent in parents.items():
        both = (_both(driver, wanted, joint) & _both(driver, wanted, parent))[alike]
        if not both.any():
            continue
        frame = alike[int(np.argmax(both))]
        ours = float(np.linalg.norm(driver[frame, joint, :2] - driver[frame, parent, :2]))
        theirs = float(np.linalg.norm(wanted[joint, :2] - wanted[parent, :2]))
        if ours > 1e-6 and theirs > 1e-6:
            own[joint] = theirs / ours
            squares += (theirs**2, ours**2) if joint < _VIRTUAL + len(KEYPOINTS) else (0.0, 0.0)
    scale = float(np.sqrt(squares[0] / squares[1])) if squares[1] else 1.0
    inherited: dict[int, float] = {}
    for joint, parent in parents.items():
        beyond_body = joint >= _VIRTUAL + len(KEYPOINTS)
        fallback = inherited.get(parent, scale) if beyond_body else scale
        inherited[joint] = float(np.clip(own.get(joint, fallback), scale / _MOST, scale * _MOST))
    return scale, inherited


def _child(
    driver: np.ndarray,
    moved: np.ndarray,
    joint: int,
    parent: int,
    parents: dict[int, int],
    length: float,
    scale: float,
) -> np.ndarray:
    """Where a joint goes, [F, 2]: from its parent, or where that is not seen from the nearest one that is."""
    result = moved[:, parent, :2] + length * (driver[:, joint, :2] - driver[:, parent, :2])
    lost = driver[:, parent, 2] <= 0
    while lost.any() and parent in parents:
        parent = parents[parent]
        from_here = moved[:, parent, :2] + scale * (driver[:, joint, :2] - driver[:, parent, :2])
        result = np.where(lost[:, None], from_here, result)
        lost &= driver[:, parent, 2] <= 0
    return result
