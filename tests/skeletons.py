"""Skeletons drawn in the published convention, to be read back."""

import math

import cv2
import numpy as np

from omnihuman.inference.skeleton_video import JOINTS, LIMBS

HALF_THICKNESS, RADIUS = 4, 4


def _colour(number: int) -> tuple[int, ...]:
    pixel = cv2.cvtColor(np.array([[[20 * number, 1.0, 1.0]]], np.float32), cv2.COLOR_HSV2RGB)[0, 0]
    return tuple(round(float(channel) * 255) for channel in pixel)


def draw_skeleton(points: np.ndarray, width: int, height: int) -> np.ndarray:
    """Joints [18, 3] in shares to uint8 [height, width, 3]: ellipses at 0.6 of the brightness, discs above them."""
    canvas = np.zeros((height, width, 3), np.uint8)
    places = points[:, :2] * (width, height)
    for limb, (first, second) in enumerate(LIMBS):
        if min(points[first, 2], points[second, 2]) <= 0:
            continue
        (x1, y1), (x2, y2) = places[first], places[second]
        angle = math.degrees(math.atan2(y1 - y2, x1 - x2))
        middle, length = (int((x1 + x2) / 2), int((y1 + y2) / 2)), math.hypot(x1 - x2, y1 - y2)
        outline = cv2.ellipse2Poly(middle, (int(length / 2), HALF_THICKNESS), int(angle), 0, 360, 1)
        cv2.fillConvexPoly(canvas, outline, _colour(limb))
    canvas = (canvas * 0.6).astype(np.uint8)
    for joint in range(JOINTS):
        if points[joint, 2] > 0:
            cv2.circle(canvas, (int(places[joint, 0]), int(places[joint, 1])), RADIUS, _colour(joint), thickness=-1)
    return canvas
