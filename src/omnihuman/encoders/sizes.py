"""From a picture's own size to the sizes at which it is encoded."""

import math
from dataclasses import dataclass

from omnihuman.config.schema.encode import Encode


@dataclass(frozen=True)
class EncodedSize:
    """One size of a clip."""

    area_pixels: int
    """The entry of `encode.resolutions`; width times height is about that."""
    width: int
    height: int


def encoded_sizes(width: int, height: int, config: Encode) -> list[EncodedSize]:
    """Of a clip of width x height pixels, from the largest: at each resolution that it has, at the lowest anyway.

    Resolutions so near each other that the sizes are equal give one, named by the lowest.
    """
    lowest, *higher = config.resolutions
    sizes: dict[tuple[int, int], int] = {}
    for area in (lowest, *(area for area in higher if area <= width * height)):
        sizes.setdefault(encoded_size(width, height, area, config), area)
    return [EncodedSize(area, *size) for size, area in reversed(sizes.items())]


def encoded_size(width: int, height: int, area_pixels: int, config: Encode) -> tuple[int, int]:
    """Width and height in pixels: about `area_pixels`, in multiples of `size_multiple`, the aspect nearly kept."""
    aspect = min(max(width / height, 1 / config.max_aspect), config.max_aspect)
    multiple = config.size_multiple
    columns = max(1, round(math.sqrt(area_pixels * aspect) / multiple))
    rows = max(1, round(math.sqrt(area_pixels / aspect) / multiple))
    return columns * multiple, rows * multiple
