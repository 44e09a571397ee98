"""Reading a still picture as a person sees it."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from omnihuman.errors import UserError

_MAX_PIXELS = 100_000_000


def read_picture(path: Path) -> np.ndarray:
    """uint8 [H, W, 3] RGB: EXIF rotation applied, transparency over white, first frame of an animation.

    Raises:
        UserError: the file is missing, no picture, or has more than 100 million pixels.
    """
    if not path.is_file():
        raise UserError(f"picture {path}: no such file")
    try:
        with Image.open(path) as image:
            if image.width * image.height > _MAX_PIXELS:
                raise UserError(
                    f"picture {path}: {image.width} x {image.height} is too large, shrink it below 100 megapixels"
                )
            upright = ImageOps.exif_transpose(_eight_bits(image)).convert("RGBA")
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        raise UserError(
            f"picture {path}: cannot be read as a picture ({error}); give a PNG, JPEG or WebP file"
        ) from error
    white = Image.new("RGBA", upright.size, "white")
    return np.asarray(Image.alpha_composite(white, upright).convert("RGB"))


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scales 16-bit grey, which Pillow would cut off at 255."""
    if not image.mode.startswith("I"):
        return image
    scaled = Image.fromarray((np.asarray(image) // 257).clip(0, 255).astype(np.uint8))
    scaled.info = image.info
    return scaled


def resize_picture(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """uint8 [height, width, 3], Lanczos with antialiasing."""
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS))
