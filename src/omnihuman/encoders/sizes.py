"""From a picture's own size to the size at which it is encoded."""

import math

from omnihuman.config.schema.encode import Encode


def encoded_size(width: int, height: int, config: Encode) -> tuple[int, int]:
    """Width and height in pixels: about `area_pixels`, in multiples of `size_multiple`, the aspect nearly kept."""
    aspect = min(max(width / height, 1 / config.max_aspect), config.max_aspect)
    multiple = config.size_multiple
    columns = max(1, round(math.sqrt(config.area_pixels * aspect) / multiple))
    rows = max(1, round(math.sqrt(config.area_pixels / aspect) / multiple))
    return columns * multiple, rows * multiple
