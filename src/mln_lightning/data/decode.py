"""From the bytes of an image file to pixels of a common shape: what a viewer would show."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from io import BytesIO
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin, UnidentifiedImageError

from mln_lightning.data.image_format import ImageFormat

# Raster formats only: Pillow would start Ghostscript for others.
_KNOWN = (
    *("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "AVIF", "JPEG2000", "MPO"),
    *("TGA", "ICO", "PCX", "SGI"),
)
_ORIENTATION = 0x0112  # EXIF tag
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_LYING = (5, 6, 7, 8)  # orientations that swap width and height
_DRAFT = 2  # a JPEG is decoded at this many times the final scale, or more


class ImageError(ValueError):
    """The bytes are not an image that can be used; the message is a reason without a name."""


class Decoded(NamedTuple):
    """An image and what its file said.

    Attributes:
        pixels: ``(H, W, K)`` uint8.
        width: of the upright image in the file.
        height: of the upright image in the file.
        mode: Pillow's name for the kind of pixels in the file, such as RGB, L or CMYK.
    """

    pixels: NDArray[np.uint8]
    width: int
    height: int
    mode: str


def decode(content: bytes, image_format: ImageFormat) -> Decoded:
    """Decode the first frame, upright, on white, in 8 bits; then scale and crop.

    Transparent pixels are laid over white. Gray of 16 bits is scaled by 255/65535. Gray of 32 bits
    has no agreed range: the smallest of 0…1 (only for floating point), 0…255, 0…65535 and
    0…2³¹-1 that holds the image's values is scaled to 0…255; what is outside is clipped. Colour
    profiles are ignored. Scaling is bilinear with antialiasing; a large JPEG is decoded at a
    reduced size first, but at no less than twice the final scale.

    Args:
        content: the whole file.
        image_format: shape of the result.

    Raises:
        ImageError: the content is damaged, truncated, too large, or no image.
    """
    try:
        with _quiet():
            return _decode(content, image_format)
    except (MemoryError, ImageError):
        raise
    except UnidentifiedImageError:
        what = "it is not an image in a known format" if content else "the file is empty"
        raise ImageError(what) from None
    except Image.DecompressionBombError:
        raise ImageError(_too_large("more than twice as many pixels")) from None
    except Exception as error:  # Pillow's plugins raise all kinds of errors on damaged files
        detail = str(error).rstrip(".") or type(error).__name__
        raise ImageError(f"it is damaged or truncated ({detail})") from error


def _decode(content: bytes, image_format: ImageFormat) -> Decoded:
    with Image.open(BytesIO(content), formats=_formats()) as image:
        width, height = image.size
        if Image.MAX_IMAGE_PIXELS is not None and width * height > Image.MAX_IMAGE_PIXELS:
            raise ImageError(_too_large(f"{width} x {height} pixels"))
        mode, orientation = image.mode, _orientation(image)
        lying = orientation in _LYING
        if isinstance(image, JpegImagePlugin.JpegImageFile):
            scaled = image_format.cut(*_swapped(image.size, lying)).scaled
            across, down = _swapped(scaled, lying)
            image.draft(
                "L" if image_format.channels == 1 else None, (_DRAFT * across, _DRAFT * down)
            )
        image.load()
        # Pillow turns TIFF files itself while it loads them.
        turned = _orientation(image) != orientation
        upright = _eight_bits(image)
        if orientation in _UPRIGHT and not turned:
            upright = upright.transpose(_UPRIGHT[orientation])
    width, height = _swapped((width, height), lying)
    cut = image_format.cut(width, height)
    x, y = upright.width / cut.scaled[0], upright.height / cut.scaled[1]
    left, upper, right, lower = cut.box
    upright = upright.convert("L" if image_format.channels == 1 else "RGB")
    # Only what remains after the crop is scaled.
    pixels = np.asarray(
        upright.resize(
            cut.size,
            Image.Resampling.BILINEAR,
            box=(left * x, upper * y, right * x, lower * y),
        )
    )
    return Decoded(pixels.reshape(*pixels.shape[:2], -1), width, height, mode)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Any kind of pixels → gray or RGB, 8 bits, on white."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _gray_of_many_bits(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def _gray_of_many_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all():
        raise ImageError("it has pixels that are not finite numbers")
    if image.mode.startswith("I;16") or image.format in ("PNG", "PPM"):
        top = 65535.0  # these have 16 bits at most, in whatever Pillow keeps them
    else:
        ranges = (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0)
        largest = values.max()
        top = next((top for top in ranges if largest <= top), 2.0**31 - 1)
    return Image.fromarray((values * (255 / top)).round().clip(0, 255).astype(np.uint8))


def _orientation(image: Image.Image) -> int:
    with suppress(Exception):  # a picture with damaged EXIF data is shown as it lies
        return int(image.getexif().get(_ORIENTATION, 1))
    return 1


def _swapped(size: tuple[int, int], swap: bool) -> tuple[int, int]:
    return (size[1], size[0]) if swap else size


def _too_large(size: str) -> str:
    return (
        f"it has {size}, more than the {Image.MAX_IMAGE_PIXELS} that are safe to decode "
        "(PIL.Image.MAX_IMAGE_PIXELS)"
    )


@cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in _KNOWN if name in Image.OPEN)


_lock = threading.Lock()
_threads_inside = 0
_saved: warnings.catch_warnings[None] | None = None


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Pillow's warnings to ourselves; what matters in them becomes an error here.

    `warnings.catch_warnings` alone is not made for threads that leave in another order than they
    came: the first one in changes the filters, the last one out restores them.
    """
    global _threads_inside, _saved
    with _lock:
        if not _threads_inside:
            _saved = warnings.catch_warnings()
            _saved.__enter__()
            warnings.filterwarnings("ignore", module=r"PIL\.")
        _threads_inside += 1
    try:
        yield
    finally:
        with _lock:
            _threads_inside -= 1
            if not _threads_inside and _saved is not None:
                _saved.__exit__(None, None, None)
                _saved = None
