"""Quality of single pictures: blur, noise, light and a stand-in for looks."""

import cv2
import numpy as np

from omnihuman.data.scorers.content import ClipContent, Measurement, Scorer, measured

CENTRE_SIDE = 96
"""The centre of the picture is compared at this size, because Laplacians depend on resolution."""
MIN_FACE_PIXELS = 40
"""Below this a face enlarged to the fixed size would look blurred by the enlargement."""
BLACK_LUMA, WHITE_LUMA = 24, 248


def measure_image_quality(content: ClipContent) -> tuple[Measurement, ...]:
    """Acutance of the whole picture, lowered by noise; 0 flat or blurred, about 1 crisp."""
    pictures = content.grey[content.few].astype(np.float32)
    values = [_acutance(picture) / (1 + _noise(picture) / 8) for picture in pictures]
    return (measured("image_quality", float(np.median(values)), len(values)),)


def measure_sharpness(content: ClipContent) -> tuple[Measurement, ...]:
    """Laplacian variance of face or centre, over the variance there; blur lowers it, less contrast does not."""
    values = []
    for index in content.few:
        region = _face_or_centre(content, int(index))
        laplacian = cv2.Laplacian(region, cv2.CV_32F)
        values.append(laplacian.var() / (region.var() + 4.0))
    return (measured("sharpness", float(np.median(values)), len(values)),)


def measure_brightness(content: ClipContent) -> tuple[Measurement, ...]:
    """Mean luma 0..1, and the share of pixels that are nearly black."""
    grey = content.grey[content.few]
    brightness = measured("brightness", grey.mean() / 255, len(grey))
    return brightness, measured("black_share", (grey < BLACK_LUMA).mean(), len(grey))


def measure_blown_share(content: ClipContent) -> tuple[Measurement, ...]:
    """Share of pixels that are nearly white: light that the camera could not hold."""
    grey = content.grey[content.few]
    return (measured("blown_share", (grey > WHITE_LUMA).mean(), len(grey)),)


def measure_aesthetics(content: ClipContent) -> tuple[Measurement, ...]:
    """Colourfulness (Hasler and Suesstrunk, 2003) and contrast, each about 0..1, added: a stand-in."""
    pixels = content.frames.pixels[content.few][:, ::2, ::2].astype(np.float32)
    red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    opponents = np.stack([red - green, (red + green) / 2 - blue]).reshape(2, -1)
    colourfulness = np.linalg.norm(opponents.std(axis=1)) + 0.3 * np.linalg.norm(opponents.mean(axis=1))
    low, high = np.percentile(content.grey[content.few][:, ::2, ::2], [5, 95])
    return (measured("aesthetics", colourfulness / 100 + (high - low) / 255, len(pixels)),)


def _acutance(picture: np.ndarray) -> float:
    """Steepest slopes over the contrast that they cross: 1 when an edge rises within a pixel or two."""
    # Not cv2.magnitude, whose last bit depends on where in memory its arguments lie.
    slope = np.sqrt(cv2.Sobel(picture, cv2.CV_32F, 1, 0) ** 2 + cv2.Sobel(picture, cv2.CV_32F, 0, 1) ** 2) / 8
    low, high = np.percentile(picture[::2, ::2], [2, 98])
    return float(2 * np.percentile(slope, 99) / (high - low + 8))


def _noise(picture: np.ndarray) -> float:
    """Standard deviation of noise in grey levels, from the flattest half (mask of Immerkaer, 1996)."""
    kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    response = np.abs(cv2.filter2D(picture, cv2.CV_32F, kernel))
    return float(np.median(response[::2, ::2]) / (0.6745 * 6))


def _face_or_centre(content: ClipContent, index: int) -> np.ndarray:
    """float32 [side, side]; the face is enlarged or shrunk to the fixed size, the centre is cut at it."""
    grey, face = content.grey[index], content.face
    height, width = grey.shape
    if face.found[index] and face.height[index] >= MIN_FACE_PIXELS:
        half = face.height[index] / 2
        x, y = face.eyes[index] + [0, 0.15 * 2 * half]
        left, top = max(0, round(x - half)), max(0, round(y - half))
        region = grey[top : round(y + half), left : round(x + half)]
        if min(region.shape) >= MIN_FACE_PIXELS // 2:
            return cv2.resize(region, (CENTRE_SIDE, CENTRE_SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    side = min(CENTRE_SIDE, height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return grey[top : top + side, left : left + side].astype(np.float32)


IMAGE_QUALITY = Scorer(("image_quality",), measure_image_quality, "1")
SHARPNESS = Scorer(("sharpness",), measure_sharpness, "1")
BRIGHTNESS = Scorer(("brightness", "black_share"), measure_brightness, "1")
BLOWN_SHARE = Scorer(("blown_share",), measure_blown_share, "1")
AESTHETICS = Scorer(("aesthetics",), measure_aesthetics, "1")
