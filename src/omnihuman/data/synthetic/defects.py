"""What is wrong with the defective clips, and how pictures, poses and files are spoilt."""

from pathlib import Path

import cv2
import numpy as np

from omnihuman.batch import Keypoints

DEFECTS = (
    "sound_shifted",
    "sound_swapped",
    "sound_silent",
    "frozen",
    "blurred",
    "dark",
    "cut_inside",
    "overlaid_text",
    "hands_out_of_frame",
    "pose_jitter",
    "truncated",
)
"""Kinds of defect; a clip has one at most, named in the ground truth only."""

FROZEN_FROM = 0.15
"""Share of the clip after which the picture stands still."""
BLUR_SHARE = 0.028
"""Standard deviation of the blur, of the short side."""
DARKNESS = 0.13
JITTER_SHARE = 0.03
"""Standard deviation of declared points, of width and height."""
TRUNCATED_SHARE = 0.55
BANNERS = ("BREAKING NEWS", "SUBSCRIBE NOW", "LIVE TONIGHT", "EPISODE 12")


def frozen_index(frame: int, num_frames: int) -> int:
    """The frame that a frozen clip shows at position `frame`."""
    return min(frame, int(FROZEN_FROM * num_frames))


def spoil_picture(image: np.ndarray, defect: str, banner: str) -> np.ndarray:
    """Applies a defect of the picture, uint8 [H, W, 3]; other defects leave it as it is."""
    short = min(image.shape[:2])
    if defect == "blurred":
        return cv2.GaussianBlur(image, (0, 0), BLUR_SHARE * short)
    if defect == "dark":
        return (image * DARKNESS).astype(np.uint8)
    if defect == "overlaid_text":
        return _write_banner(image, banner)
    return image


def spoil_keypoints(rng: np.random.Generator, keypoints: Keypoints) -> Keypoints:
    """Makes declared points tremble; those without confidence stay."""
    points = keypoints.points.copy()
    noise = rng.normal(0, JITTER_SHARE, points[..., :2].shape)
    points[..., :2] += np.where(points[..., 2:] > 0, noise, 0)
    inside = ((points[..., :2] >= 0) & (points[..., :2] < 1)).all(axis=-1)
    points[..., 2] *= inside
    return Keypoints(points.astype(np.float32), keypoints.seconds)


def truncate_file(path: Path) -> None:
    """Cuts off the end of a file, and with it the index that decoders need."""
    content = path.read_bytes()
    path.write_bytes(content[: int(TRUNCATED_SHARE * len(content))])


def _write_banner(image: np.ndarray, text: str) -> np.ndarray:
    height, width = image.shape[:2]
    image = image.copy()
    tall = round(0.13 * min(height, width))
    top = height - round(1.25 * tall)
    image[top : top + tall] = image[top : top + tall] // 5
    (text_width, text_height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_DUPLEX, 1.0, 1)
    scale = min(0.6 * tall / text_height, 0.9 * width / text_width)
    origin = (round((width - scale * text_width) / 2), top + round((tall + scale * text_height) / 2))
    cv2.putText(image, text, origin, cv2.FONT_HERSHEY_DUPLEX, scale, (255, 255, 255), 1, cv2.LINE_AA)
    return image
