"""Small strips of a clip's frames, by which people see on the report what a rule lets through and what it refuses."""

import cv2
import numpy as np

NUM_FRAMES = 6
SHORT_SIDE_PIXELS = 64
_QUALITY = 70


def strip_of(frames: np.ndarray) -> bytes:
    """Six frames of a clip, evenly spread, side by side in one JPEG of some 8 kB.

    Args:
        frames: uint8 [F, H, W, 3], RGB.
    """
    _, height, width, _ = frames.shape
    scale = SHORT_SIDE_PIXELS / min(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    chosen = frames[np.linspace(0, len(frames) - 1, NUM_FRAMES).round().astype(int)]
    small = [cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in chosen]
    _, encoded = cv2.imencode(".jpg", np.hstack(small)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return encoded.tobytes()
