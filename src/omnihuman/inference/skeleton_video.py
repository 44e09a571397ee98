"""Keypoints read back from rendered skeletons, in the colours of OpenPose as ControlNet and DWPose draw them.

Facts of that convention (`draw_bodypose` of ControlNet's annotator and of DWPose): eighteen joints of COCO's order
with a neck, joint i as a disc of radius 4 in hue 20 i degrees at full brightness; seventeen limbs, limb k as an
ellipse 8 pixels thick from joint to joint in hue 20 k at 0.6 of the brightness, below the discs; hands (rainbow lines,
pure blue discs) and 68 white dots of the face on top. Read are the eighteen joints; hands and the dots are not. The
dots hide nose and eyes: the nose is then put into their middle.
"""

import cv2
import numpy as np

JOINTS = 18
NOSE, NECK = 0, 1
LIMBS = (
    (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13), (1, 0),
    (0, 14), (14, 16), (0, 15), (15, 17),
)  # fmt: skip
"""By the joints of COCO-18, in the order of their hues."""
_OF_HEAD = (0, 14, 15, 16, 17)
"""Joints whose limbs are short, and hidden by the face's dots."""
_NUMBER_OF_HUE: np.ndarray = (np.rint(np.arange(256) * 360 / 256 / 20) % 18).astype(np.int8)
"""By OpenCV's hue, which counts the circle in 256 parts."""
_BLACK = 40
"""Of 255; a pixel below it in all channels is the background."""
_SEEN, _END_OF_LIMB, _MIDDLE_OF_FACE = 1.0, 0.6, 0.5
"""Confidences: a disc was found, only the end of a limb, only the face's dots."""
_NEAR = 0.035
"""Share of the height within which a disc lies from the end of its limb."""
_MIN_LIMB_PIXELS = 12
_MIN_DOTS_PIXELS = 60


def is_skeleton(picture: np.ndarray) -> bool:
    """Whether a picture, uint8 [H, W, 3], is such a drawing: black ground, and little else than the pure colours."""
    drawn = picture.max(axis=2) > _BLACK
    if not 0.001 < drawn.mean() < 0.5:
        return False
    pixels = picture[drawn].astype(int)
    brightest, darkest = pixels.max(axis=1), pixels.min(axis=1)
    pure = darkest < 0.35 * brightest
    white = darkest > 200
    return bool((pure | white).mean() > 0.7 and pure.mean() > 0.3)


def read_skeleton(picture: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3] to float32 [18, 3]: x and y as shares, confidence; zeros where a joint is not found."""
    height, width = picture.shape[:2]
    rows, columns = (np.flatnonzero((picture > _BLACK).any(axis=(axis, 2))) for axis in (1, 0))
    if not len(rows):
        return np.zeros((JOINTS, 3), np.float32)
    top, left = rows[0], columns[0]
    hue, brightness, white = _colours(picture[top : rows[-1] + 1, left : columns[-1] + 1])
    ends = {limb: _limb_ends((hue == limb) & (brightness == 1)) for limb in range(len(LIMBS))}
    points = np.zeros((JOINTS, 3))
    for joint in range(JOINTS):
        expected = [end for limb, pair in enumerate(LIMBS) if joint in pair for end in ends[limb]]
        disc = _disc((hue == joint) & (brightness == 2), expected, _NEAR * height, joint in _OF_HEAD)
        if disc is not None:
            points[joint] = (*disc, _SEEN)
    for limb, (first, second) in enumerate(LIMBS[:13]):
        for known, lost in ((first, second), (second, first)):
            if len(ends[limb]) and points[known, 2] and not points[lost, 2] and lost != NOSE:
                far = max(ends[limb], key=lambda end, at=points[known, :2]: np.hypot(*(end - at)))
                points[lost] = (*far, _END_OF_LIMB)
    if not points[NOSE, 2] and white.sum() >= _MIN_DOTS_PIXELS:
        rows, columns = np.nonzero(white)
        points[NOSE] = (np.median(columns), np.median(rows), _MIDDLE_OF_FACE)
    points[:, :2] += (points[:, 2:] > 0) * (left + 0.5, top + 0.5)  # the middle of a pixel
    return (points / (width, height, 1)).astype(np.float32)


def _colours(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Number of the hue, int [H, W], -1 without one; brightness (1 of limbs, 2 of discs, else 0); the face's white."""
    hsv: np.ndarray = cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2HSV_FULL)
    saturation, value = hsv[..., 1], hsv[..., 2]
    hue = np.where((saturation > 150) & (value > 80), _NUMBER_OF_HUE[hsv[..., 0].astype(int)], -1)
    brightness = np.where(value > 195, 2, np.where(value > 80, 1, 0))
    return hue, brightness, (saturation < 60) & (value > 200)


def _limb_ends(mask: np.ndarray) -> list[np.ndarray]:
    """Both ends of what a mask shows, x and y; empty where it shows nothing. Rims of discs are thin and fall away."""
    thick = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    rows, columns = np.nonzero(thick)
    if len(rows) < _MIN_LIMB_PIXELS:
        return []
    places = np.stack([columns, rows], axis=1).astype(float)
    middle = places.mean(axis=0)
    axis = np.linalg.eigh((places - middle).T @ (places - middle))[1][:, -1]
    along = (places - middle) @ axis
    return [middle + axis * edge for edge in np.percentile(along, (1, 99))]


def _disc(mask: np.ndarray, expected: list[np.ndarray], near: float, free: bool) -> np.ndarray | None:
    """Middle of the disc nearest to where limbs end; where none is seen the largest, for joints that are `free`."""
    thick = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    number, _, boxes, middles = cv2.connectedComponentsWithStats(thick)
    if number < 2:
        return None
    if not expected:
        return middles[1 + boxes[1:, cv2.CC_STAT_AREA].argmax()] if free else None
    distances = [min(np.hypot(*(middle - end)) for end in expected) for middle in middles[1:]]
    best = int(np.argmin(distances))
    return middles[1 + best] if distances[best] <= near else None
