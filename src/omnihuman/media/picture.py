"""Reading a still picture as a person sees it."""

import io
import logging
import warnings
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageOps, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from omnihuman.errors import UserError

log = logging.getLogger(__name__)
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "AVIF", "BMP", "TIFF", "JPEG2000")
"""What is read; others are kept out, because some make Pillow run other programs (EPS)."""
SMALLEST_SIDE = 16
"""In pixels; below it nobody can be seen."""
MAX_PIXELS = 64_000_000
"""Decoded at once, in about half a gigabyte. A JPEG with more is decoded at a half, a quarter or an eighth
of its size."""
ENOUGH_PIXELS = 10_000_000
"""About 4096 x 2304. A picture that has several times as many is made smaller before its colours are converted."""

_TOO_LARGE = f"has too many pixels; shrink it below {MAX_PIXELS // 10**6} megapixels"


def read_picture(path: Path) -> np.ndarray:
    """uint8 [H, W, 3] in sRGB: EXIF rotation applied, transparency over white, the first picture of an animation.

    Raises:
        UserError: the file is missing, no picture, damaged, too small, or too large to be decoded.
    """
    if not path.is_file():
        raise UserError(f"picture {path}: no such file")
    try:
        with _opened(path) as image:
            if getattr(image, "is_animated", False) and image.format != "MPO":  # MPO: one photo in several versions
                log.warning("picture %s: an animation; the first of its pictures is taken", path)
            _prepare(path, image)
            image.load()
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
            flat = _opaque(_to_srgb(_reduced(_eight_bits(image)), image.info.get("icc_profile")))
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        raise UserError(f"picture {path}: cannot be read as a picture ({_reason(path, error)})") from error
    flat.getexif()[ExifTags.Base.Orientation] = orientation
    return np.asarray(ImageOps.exif_transpose(flat))


def _opened(path: Path) -> Image.Image:
    try:
        with warnings.catch_warnings():  # the limit is ours
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return Image.open(path, formats=FORMATS)
    except Image.DecompressionBombError as error:
        try:
            return JpegImageFile(path)  # which can be decoded smaller
        except SyntaxError:
            raise UserError(f"picture {path}: {_TOO_LARGE}") from error


def _prepare(path: Path, image: Image.Image) -> None:
    """Refuses a picture by its size, and asks for a large JPEG in a smaller one."""
    width, height = image.size
    if min(width, height) < SMALLEST_SIDE:
        raise UserError(
            f"picture {path}: {width} x {height} pixels are too few to show anybody; give one of at least"
            f" {SMALLEST_SIDE} pixels a side"
        )
    # All scans of a progressive JPEG lie in memory at full size, whatever comes out.
    if image.format == "JPEG" and not (image.info.get("progressive") and width * height > MAX_PIXELS):
        scale = min(1.0, (ENOUGH_PIXELS / (width * height)) ** 0.5)
        image.draft(None, (round(width * scale), round(height * scale)))
    if image.width * image.height > MAX_PIXELS:
        raise UserError(f"picture {path}: {_TOO_LARGE}")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scales 16-bit grey, which Pillow would cut off at 255, and names the colours of palettes."""
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image) // 257).clip(0, 255).astype(np.uint8))
    return image.convert("RGBA") if image.mode in ("P", "PA", "1") else image


def _reduced(image: Image.Image) -> Image.Image:
    factor = int((image.width * image.height / ENOUGH_PIXELS) ** 0.5)
    return image.reduce(factor) if factor > 1 else image


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Applies an embedded profile: phones save wide colours, and printers' inks mean little without theirs."""
    if not profile or image.mode not in ("RGB", "RGBA", "CMYK"):
        return image
    mode = "RGBA" if image.mode == "RGBA" else "RGB"
    try:
        embedded, srgb = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
        return ImageCms.profileToProfile(image, embedded, srgb, outputMode=mode) or image
    except (ImageCms.PyCMSError, OSError):  # a damaged profile: the colours are taken as they are
        return image


def _opaque(image: Image.Image) -> Image.Image:
    """RGB, over white."""
    if image.mode in ("RGB", "L", "CMYK", "YCbCr") and "transparency" not in image.info:
        return image.convert("RGB")
    layered = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layered.size, "white"), layered).convert("RGB")


def _reason(path: Path, error: Exception) -> str:
    remedy = "give a PNG, JPEG or WebP file"
    with path.open("rb") as file:
        head = file.read(12)
    if head[4:8] == b"ftyp" and head[8:12] in (b"heic", b"heix", b"mif1", b"hevc"):
        return "it is HEIC, as iPhones save it: save it as JPEG"
    known = "of no known kind" if isinstance(error, UnidentifiedImageError) else str(error)
    return f"{known if head else 'the file is empty'}; {remedy}"


def resize_picture(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """uint8 [height, width, 3], Lanczos with antialiasing."""
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS))
