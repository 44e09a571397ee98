"""Which pixels belong to the background, from declared keypoints or, without them, from what does not move."""

import cv2
import numpy as np

_STILL = 0.06
"""A pixel is still when no frame of the real clip leaves the reference by more than this (0..1)."""
_MIN_SHARE = 0.02
"""Below this share of the picture there is no background to speak of."""


def background_mask(real: np.ndarray, reference: np.ndarray, keypoints: np.ndarray) -> np.ndarray | None:
    """bool [H, W]: pixels that stay still in the real clip and lie away from the person; None where there are too few.

    Args:
        real: float32 [F, H, W, 3] in 0..1, the held-out clip itself.
        reference: float32 [H, W, 3]
        keypoints: float32 [F, K, 3]; all confidences 0 where none were declared.
    """
    still = np.abs(real - reference).max(axis=(0, 3)) < _STILL
    person = np.zeros(still.shape, np.uint8)
    height, width = still.shape
    for points in keypoints:
        seen = points[points[:, 2] > 0.5, :2] * [width, height]
        if len(seen) >= 3:
            cv2.fillConvexPoly(person, cv2.convexHull(seen.round().astype(np.int32)), 1)
    if person.any():
        reach = 2 * round(0.12 * height) + 1  # hair, hands and clothes reach beyond the joints
        person = cv2.dilate(person, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach)))
    mask = still & (person == 0)
    return mask if mask.mean() >= _MIN_SHARE else None


def masked_psnr(video: np.ndarray, reference: np.ndarray, mask: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of [F, H, W, 3] against one picture [H, W, 3] over the masked pixels."""
    error = ((video - reference) ** 2)[:, mask].mean()
    return float(-10 * np.log10(max(error, 1e-10)))
