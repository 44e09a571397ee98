"""The picture of a request, at the size that the model makes."""

import logging
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from omnihuman.config.schema.encode import Encode
from omnihuman.data.scorers.face import search_faces
from omnihuman.data.shards import Encoders
from omnihuman.encoders.sizes import encoded_size
from omnihuman.errors import UserError
from omnihuman.inference.request import LARGEST_SIDE, InputOptions
from omnihuman.media.picture import read_picture, resize_picture

log = logging.getLogger(__name__)
_LOOK_PIXELS = 480
"""Shorter side of the picture in which a face is looked for."""
_SMALLEST_FACE = 0.06
"""Of the shorter side; smaller ones show no mouth."""
_BEYOND_TRAINED = 1.1
"""Area over the largest trained one, from which it is said; sizes in multiples differ by less."""


@dataclass(frozen=True)
class FittedPicture:
    """A picture as the model sees it, and which part of the file it is."""

    pixels: np.ndarray  # uint8 [height, width, 3]
    left: float  # of the part that is shown, in shares of the file's width and height
    top: float
    part_width: float
    part_height: float
    aspect: float
    """Width over height of the part that is shown, before it was brought to multiples."""

    def shown(self, points: np.ndarray) -> np.ndarray:
        """Keypoints [..., 3] in shares of the file, as shares of the part that is shown."""
        moved = (points[..., :2] - (self.left, self.top)) / (self.part_width, self.part_height)
        return np.concatenate([moved, points[..., 2:]], axis=-1).astype(np.float32)


def read_fitted(path: Path, encoders: Encoders, options: InputOptions) -> FittedPicture:
    """Reads a picture and brings it to the asked size, or else to the largest that the model was trained on.

    Sides are multiples of `encoders.size_multiple`; the aspect changes by that little, as in training. A picture whose
    aspect differs by more is cut, around the face where one is seen.

    Raises:
        UserError: it cannot be read.
    """
    picture = read_picture(path)
    height, width = picture.shape[:2]
    face = _face(picture)
    if face is None:
        log.warning("picture %s: no face is seen in it; animals and drawn people may still move, less surely", path)
    size = _size(width, height, encoders, options)
    part_width, part_height = _part(width, height, size, encoders.size_multiple)
    middle = (0.5, 0.5) if face is None else face
    left = float(np.clip(round(middle[0] * width - part_width / 2), 0, width - part_width))
    top = float(np.clip(round(middle[1] * height - part_height / 2), 0, height - part_height))
    if (part_width, part_height) != (width, height):
        log.warning(
            "picture %s: %d x %d pixels are cut to %d x %d for the shape %d x %d; give another size, or cut it",
            path, width, height, part_width, part_height, *size,
        )  # fmt: skip
    shown = picture[int(top) : int(top) + part_height, int(left) : int(left) + part_width]
    return FittedPicture(
        resize_picture(shown, *size),
        left / width,
        top / height,
        part_width / width,
        part_height / height,
        part_width / part_height,
    )


def _size(width: int, height: int, encoders: Encoders, options: InputOptions) -> tuple[int, int]:
    """Width and height of what the model makes."""
    config = Encode(size_multiple=encoders.size_multiple, max_aspect=encoders.max_aspect)
    trained = max(encoders.resolutions)
    aspect = float(np.clip(width / height, 1 / encoders.max_aspect, encoders.max_aspect))
    asked = (options.model_width, options.model_height)
    if options.model_short_side:
        short = options.model_short_side
        asked = (short, 0) if aspect < 1 else (0, short)
    if not any(asked):
        return encoded_size(width, height, trained, config)
    asked = (asked[0] or round(asked[1] * aspect), asked[1] or round(asked[0] / aspect))
    multiple = encoders.size_multiple
    width, height = (max(1, round(side / multiple)) * multiple for side in asked)
    if max(width, height) > LARGEST_SIDE:
        raise UserError(f"{width} x {height} pixels are asked of the model: at most {LARGEST_SIDE} a side")
    if (width, height) != asked:
        log.info("the model makes %d x %d pixels: its sides are multiples of %d", width, height, multiple)
    if width * height > _BEYOND_TRAINED * trained:
        log.warning(
            "%d x %d pixels are more than the model was trained on (%d in all): pictures may break",
            width,
            height,
            trained,
        )
    return width, height


def _part(width: int, height: int, size: tuple[int, int], multiple: int) -> tuple[int, int]:
    """Width and height in the file of what is shown: all of it, where multiples alone change the aspect."""
    change = (width / height) / (size[0] / size[1])
    rounding = (1 + multiple / 2 / min(size)) ** 2
    if 1 / rounding <= change <= rounding:
        return width, height
    if change > 1:
        return max(1, round(height * size[0] / size[1])), height
    return width, max(1, round(width * size[1] / size[0]))


def _face(picture: np.ndarray) -> tuple[float, float] | None:
    """The middle of the largest face in shares of the picture, by the cascade that OpenCV carries."""
    scale = min(1.0, _LOOK_PIXELS / min(picture.shape[:2]))
    grey = cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else grey
    found = search_faces(small, max(20, round(_SMALLEST_FACE * min(small.shape))))
    if not len(found):
        return None
    left, top, width, height = max(found, key=lambda box: box[2]).tolist()
    return (left + width / 2) / small.shape[1], (top + height / 2) / small.shape[0]
