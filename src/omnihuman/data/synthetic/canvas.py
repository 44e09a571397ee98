"""Anti-aliased filled shapes in the coordinates of a drawing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import cv2
import numpy as np

Colour = tuple[int, int, int]
Points = np.ndarray | Sequence[tuple[float, float]] | Sequence[np.ndarray]
"""[N, 2]"""

SUBPIXEL_BITS = 4
CURVE_STEPS = 6
"""Points drawn between two control points of a smooth outline."""

_ANGLES = np.linspace(0, 2 * np.pi, 28, endpoint=False)
CIRCLE = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)
"""Unit circle, [28, 2]."""
_HALF_ANGLES = np.linspace(-np.pi / 2, np.pi / 2, 9)
HALF_CIRCLE = np.stack([np.cos(_HALF_ANGLES), np.sin(_HALF_ANGLES)], axis=1)
"""The half of the unit circle around the first axis, [9, 2]."""


def mix(one: Colour, other: Colour, share: float) -> Colour:
    """The colour that has `share` of the way from one to the other behind it."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue


def shade(colour: Colour, factor: float) -> Colour:
    """Darker below 1, lighter above 1."""
    red, green, blue = (min(255, round(value * factor)) for value in colour)
    return red, green, blue


@lru_cache(maxsize=64)
def _spline_basis(num_points: int) -> np.ndarray:
    """Weights [num_points * CURVE_STEPS, num_points] of a closed Catmull-Rom curve."""
    t = np.arange(CURVE_STEPS) / CURVE_STEPS
    weights = 0.5 * np.stack(
        [-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, -(t**2) + t**3], axis=1
    )
    basis = np.zeros((num_points, CURVE_STEPS, num_points))
    for start in range(num_points):
        for offset in range(4):
            basis[start, :, (start + offset - 1) % num_points] += weights[:, offset]
    return basis.reshape(-1, num_points)


def smooth(points: Points) -> np.ndarray:
    """A closed curve through control points [N, 2], as a polygon [N * CURVE_STEPS, 2]."""
    return _spline_basis(len(points)) @ np.asarray(points, dtype=np.float64)


def mirrored(points: list[tuple[float, float]]) -> np.ndarray:
    """Completes the right half of an outline, listed from top to bottom, with its mirror image."""
    right = np.asarray(points, dtype=np.float64)
    return np.concatenate([right, right[::-1] * [-1, 1]])


@dataclass(frozen=True)
class Canvas:
    """Pixels with an affine map from drawing coordinates, y downwards, to them."""

    pixels: np.ndarray  # uint8 [H, W, 3], drawn upon
    matrix: np.ndarray  # [2, 2]
    offset: np.ndarray  # [2], pixels; 0 is the outer edge of the first pixel

    @classmethod
    def over(cls, pixels: np.ndarray, units_per_pixel: float, centre: tuple[float, float]) -> Canvas:
        """A canvas whose middle shows the point `centre`."""
        height, width = pixels.shape[:2]
        scale = 1 / units_per_pixel
        return cls(pixels, np.eye(2) * scale, np.array([width / 2, height / 2]) - np.array(centre) * scale)

    def placed(self, at: np.ndarray, angle: float = 0.0, stretch: tuple[float, float] = (1.0, 1.0)) -> Canvas:
        """The same pixels with an origin of their own, turned clockwise by `angle` radians and stretched."""
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        return Canvas(self.pixels, self.matrix @ turn * np.array(stretch), self.matrix @ at + self.offset)

    def to_pixels(self, points: np.ndarray) -> np.ndarray:
        """Points [..., 2] in pixels from the upper left edge of the picture."""
        return points @ self.matrix.T + self.offset

    @cached_property
    def _fixed_point(self) -> tuple[np.ndarray, np.ndarray]:
        # OpenCV counts from the middle of the first pixel.
        return self.matrix.T * 2**SUBPIXEL_BITS, (self.offset - 0.5) * 2**SUBPIXEL_BITS

    def fill(self, outline: np.ndarray, colour: Colour) -> None:
        """Fills a polygon [N, 2]."""
        matrix, offset = self._fixed_point
        fixed = np.rint(outline @ matrix + offset).astype(np.int32)
        cv2.fillPoly(self.pixels, [fixed], colour, cv2.LINE_AA, SUBPIXEL_BITS)

    def ellipse(self, centre: tuple[float, float], radii: tuple[float, float], colour: Colour) -> None:
        """Fills an ellipse."""
        self.fill(CIRCLE * radii + centre, colour)

    def limb(self, start: np.ndarray, end: np.ndarray, radii: tuple[float, float], colour: Colour) -> None:
        """Fills the hull of two circles."""
        dx, dy = np.asarray(end) - start
        length = max(math.hypot(dx, dy), 1e-9)
        arc = HALF_CIRCLE @ np.array([[dx, dy], [-dy, dx]]) / length
        self.fill(np.concatenate([arc * radii[1] + end, arc * -radii[0] + start]), colour)

    def stroke(self, points: Points, width: float, colour: Colour) -> None:
        """Draws an open line [N, 2] of constant width."""
        line = np.asarray(points, dtype=np.float64)
        along = np.empty_like(line)
        along[0], along[-1] = line[1] - line[0], line[-1] - line[-2]
        along[1:-1] = line[2:] - line[:-2]
        normal = along[:, ::-1] * [-1, 1] * (width / 2 / np.maximum(np.hypot(*along.T), 1e-9))[:, None]
        self.fill(np.concatenate([line + normal, (line - normal)[::-1]]), colour)
