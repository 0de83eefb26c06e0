"""From the bytes of an image file to pixels of a common shape: what a viewer would show."""

from __future__ import annotations

import sys
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


class ReadError(ImageError):
    """The bytes could not be had, which may be another matter the next time."""


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
        raise ImageError(_too_large(f"more than {2 * (Image.MAX_IMAGE_PIXELS or 0)}")) from None
    except Exception as error:  # Pillow's plugins raise all kinds of errors on damaged files
        detail = str(error).rstrip(".") or type(error).__name__
        raise ImageError(f"it is damaged ({detail})") from error


def _decode(content: bytes, image_format: ImageFormat) -> Decoded:
    image: Image.Image = Image.open(BytesIO(content), formats=_formats())
    mode = image.mode
    width, height = _load(image, image_format)
    orientation = _orientation(image)  # asked for now: Pillow turns TIFF files while it loads
    image = _eight_bits(image, "L" if image_format.channels == 1 else "RGB")
    if orientation in _UPRIGHT:
        image = image.transpose(_UPRIGHT[orientation])
    if orientation in _LYING:
        width, height = height, width
    cut = image_format.cut(width, height)
    x, y = image.width / cut.scaled[0], image.height / cut.scaled[1]
    left, upper, right, lower = cut.box
    # Only what remains after the crop is scaled.
    scaled = image.resize(
        cut.size, Image.Resampling.BILINEAR, box=(left * x, upper * y, right * x, lower * y)
    )
    return Decoded(np.asarray(scaled).reshape(*cut.size[::-1], -1), width, height, mode)


def _load(image: Image.Image, image_format: ImageFormat) -> tuple[int, int]:
    """Decode, at reduced size where that is cheap; the full (width, height) as it lies."""
    width, height = image.size
    limit = Image.MAX_IMAGE_PIXELS  # where Pillow warns; it refuses from twice as many on
    if limit is not None and width * height > limit:
        raise ImageError(_too_large(str(width * height)))
    if not isinstance(image, JpegImagePlugin.JpegImageFile):
        image.load()
        return image.size
    if _orientation(image) in _LYING:
        down, across = image_format.cut(height, width).scaled
    else:
        across, down = image_format.cut(width, height).scaled
    image.draft("L" if image_format.channels == 1 else None, (_DRAFT * across, _DRAFT * down))
    image.load()
    return width, height


def _eight_bits(image: Image.Image, mode: str) -> Image.Image:
    """Any kind of pixels → gray (L) or RGB, 8 bits, on white."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = _gray_of_many_bits(image)
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    elif image.mode not in ("1", "L"):
        image = image if image.mode == "RGB" else image.convert("RGB")  # to gray by way of colour
    return image if image.mode == mode else image.convert(mode)


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


def _too_large(pixels: str) -> str:
    return (
        f"it has {pixels} pixels, and no more than {Image.MAX_IMAGE_PIXELS} are decoded "
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
    if getattr(sys.flags, "context_aware_warnings", False):  # Python 3.14: filters per thread
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")
            yield
        return
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
