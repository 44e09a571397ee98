"""Hands of the project's drawn people by their colour: a stand-in for a detector of keypoints, without weights.

Skin has the colour of the face in the reference picture. Of what has it, outside the face and neck, the largest spot of
a plausible size on either side is a hand; of a bare arm the end that is farthest from the shoulder. Confidence is the
share of the spot that is skin without doubt, so that hands which smear or melt into the background lose it. Real people
show skin and skin-coloured things in too many places for this.
"""

import cv2
import numpy as np

from omnihuman.batch import KEYPOINTS
from omnihuman.data.scorers.face import LEFT_EYE, NOSE, RIGHT_EYE
from omnihuman.evaluation.extractors.faces import FOUND_BY, points_of
from omnihuman.evaluation.extractors.part import STAND_IN, Part
from omnihuman.evaluation.metrics.keypoints import Found, shoulder_width
from omnihuman.evaluation.metrics.measure import Extractor, Shown

WRISTS = [KEYPOINTS.index("left_wrist"), KEYPOINTS.index("right_wrist")]
FAR, NEAR = 0.05, 0.022
"""Distances in the plane of red and green shares up to which a pixel may be skin, and is skin without doubt."""
BRIGHTNESS = (0.62, 1.35)
"""Of the face's: light falls from one side."""
FACE_AND_NECK = (-1.7, -2.6, 1.7, 2.6)
"""Left, top, right and bottom around the point between the eyes, in eye distances."""
SMALLEST, LARGEST = 0.06, 2.5
"""Areas of a hand, and of a hand with a bare arm, in squared eye distances."""
HAND = 0.25
"""Area of a hand, from which on confidence is not lowered."""
HAND_LENGTH = 0.75
"""Eye distances from the tips of the fingers to the wrist."""


def find_hands(shown: Shown) -> Found | None:
    """Both hands in every frame; None where no face tells the colour of skin."""
    height, width = shown.frames.shape[1:3]
    points = points_of(shown)
    picture = shown.frames[0] if shown.reference is None else shown.reference
    if points is None or points[[NOSE, LEFT_EYE, RIGHT_EYE], 2].min() < 0.5:
        return None
    eyes = points[[LEFT_EYE, RIGHT_EYE], :2] * [width, height]
    apart, middle = float(np.linalg.norm(eyes[0] - eyes[1])), eyes.mean(axis=0)
    skin = _skin_of(picture, middle + [0, 0.55 * apart], apart)
    hands = np.stack([_in_frame(frame, skin, middle, apart) for frame in shown.frames])
    hands[..., :2] /= [width, height]
    body = np.zeros((len(hands), len(KEYPOINTS), 3), np.float32)
    body[:, WRISTS] = hands
    return Found(body, hands, shoulder_width(points[None], height, width) if len(points) >= len(KEYPOINTS) else None)


def _skin_of(picture: np.ndarray, middle: np.ndarray, apart: float) -> np.ndarray:
    """Shares of red and green, and luma: the median of the face below the eyes."""
    reach = max(1.0, 0.5 * apart)
    left, top = np.maximum(0, np.round(middle - reach)).astype(int)
    right, bottom = np.round(middle + [reach, 0.6 * reach]).astype(int) + 1
    return np.median(_colours(picture[top:bottom, left:right]).reshape(-1, 3), axis=0)


def _colours(picture: np.ndarray) -> np.ndarray:
    """Shares of red and green, and the sum, float32 [H, W, 3]."""
    whole = picture.astype(np.float32)
    total = whole.sum(axis=2, keepdims=True) + 1
    return np.concatenate([whole[..., :2] / total, total], axis=2)


def _in_frame(frame: np.ndarray, skin: np.ndarray, middle: np.ndarray, apart: float) -> np.ndarray:
    """The left and the right hand: x, y in pixels and confidence, float32 [2, 3]; zeros where none is seen."""
    colours = _colours(frame)
    off = np.linalg.norm(colours[..., :2] - skin[:2], axis=2)
    light = colours[..., 2] / skin[2]
    lit = (light > BRIGHTNESS[0]) & (light < BRIGHTNESS[1])
    likely = ((off < FAR) & lit).astype(np.uint8)
    left, top, right, bottom = (np.tile(middle, 2) + apart * np.array(FACE_AND_NECK)).round().astype(int)
    likely[max(0, top) : max(0, bottom), max(0, left) : max(0, right)] = 0
    count, labels, stats, _ = cv2.connectedComponentsWithStats(likely, connectivity=8)
    hands = np.zeros((2, 3), np.float32)
    best = [0.0, 0.0]
    for label in range(1, count):
        area = stats[label, cv2.CC_STAT_AREA] / apart**2
        if not SMALLEST <= area <= LARGEST:
            continue
        rows, columns = np.nonzero(labels == label)
        sure = float((off[rows, columns] < NEAR).mean())
        # The person's left is on the right of the picture.
        side = 0 if columns.mean() > middle[0] else 1
        if min(area, HAND) * sure > best[side]:
            best[side] = min(area, HAND) * sure
            place = _end_of_arm(np.stack([columns, rows], axis=1), middle, apart, 1 - 2 * side)
            hands[side] = (*place, sure * min(1.0, area / HAND))
    return hands


def _end_of_arm(pixels: np.ndarray, middle: np.ndarray, apart: float, side: int) -> np.ndarray:
    """Mean of the pixels [n, 2] within a hand's length of the one that is farthest from the shoulder."""
    shoulder = middle + apart * np.array([1.5 * side, 2.7])
    root = pixels[np.linalg.norm(pixels - shoulder, axis=1).argmin()]
    tip = pixels[np.linalg.norm(pixels - root, axis=1).argmax()]
    return pixels[np.linalg.norm(pixels - tip, axis=1) <= HAND_LENGTH * apart].mean(axis=0)


DRAWN_HANDS = Part(
    find_hands,
    Extractor("stand-in: skin-coloured spots of drawn people, uncalibrated", f"every frame; face by {FOUND_BY}"),
    STAND_IN,
)
