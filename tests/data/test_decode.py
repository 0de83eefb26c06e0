"""What comes out for every kind of file, against pixels known from elsewhere."""

import random
import threading
import warnings
from importlib import resources
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, features
from torchvision.transforms import functional

from mln_lightning.data import ImageFormat
from mln_lightning.data.decode import ImageError, decode
from tests.data.image_trees import encoded, scene

SAME = ImageFormat((20, 30))  # a scene is neither scaled nor cropped
GRAY = ImageFormat((20, 30), channels=1)
PHOTOGRAPHS = ("china.jpg", "flower.jpg")  # come with scikit-learn
RAMP = np.tile(np.linspace(0, 1, 30), (20, 1))
EXIF_UPRIGHT = {  # what the camera stored, for each orientation of the tag
    1: lambda pixels: pixels,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: pixels.swapaxes(0, 1)[::-1],
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: pixels.swapaxes(0, 1)[:, ::-1],
}


def distance(found, expected) -> float:
    return float(np.abs(found.astype(float) - np.asarray(expected).astype(float)).mean())


def far(found, expected) -> int:
    return int(np.abs(found.astype(int) - np.asarray(expected).astype(int)).max())


@pytest.mark.parametrize("file_format", ["PNG", "BMP", "TIFF", "PPM", "TGA"])
def test_lossless_formats_keep_every_pixel(file_format):
    image = decode(encoded(scene(), file_format), SAME)
    assert (image.width, image.height, image.mode) == (30, 20, "RGB")
    assert image.pixels.shape == (20, 30, 3)
    assert image.pixels.dtype == np.uint8
    assert far(image.pixels, scene()) == 0
    gray = decode(encoded(scene(), file_format), GRAY).pixels
    assert gray.shape == (20, 30, 1)
    assert far(gray[..., 0], np.asarray(scene()) @ [0.299, 0.587, 0.114]) <= 1


@pytest.mark.parametrize("file_format", ["JPEG", "WEBP", "JPEG2000", "AVIF"])
def test_lossy_formats_come_close(file_format):
    if file_format == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow cannot write AVIF")
    options = {"JPEG2000": {}, "AVIF": {"quality": 95, "speed": 10}}.get(
        file_format, {"quality": 95}
    )
    found = decode(encoded(scene(), file_format, **options), SAME).pixels
    assert distance(found, scene()) <= 4
    assert distance(found[:, ::-1], scene()) > 40


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "JPEG"])
def test_a_picture_stands_as_its_exif_tag_says(file_format, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = np.asarray(scene(480, 320))
    stored = Image.fromarray(np.ascontiguousarray(EXIF_UPRIGHT[orientation](upright)))
    content = encoded(stored, file_format, exif=exif)
    # At a sixteenth of its size a JPEG is not decoded in full, and its draft lies as the file does.
    for size in (320, 480), (20, 30):
        image = decode(content, ImageFormat(size))
        expected = scene(480, 320).resize(size[::-1], Image.Resampling.BOX)
        assert (image.width, image.height) == (480, 320)
        assert distance(image.pixels, expected) <= 2
        for other in EXIF_UPRIGHT[2], EXIF_UPRIGHT[3], EXIF_UPRIGHT[4]:
            assert distance(other(image.pixels), expected) > 20


def test_damaged_exif_data_do_not_matter():
    content = encoded(scene(), "JPEG", exif=b"Exif\0\0MM\0\x2a\0\0\0\xff" + b"\xff" * 30)
    assert decode(content, SAME).pixels.shape == (20, 30, 3)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_pixels_are_white(mode):
    alpha = Image.fromarray((RAMP * 255).round().astype(np.uint8))
    image = scene().convert(mode)
    image.putalpha(alpha)
    flat = np.asarray(scene() if mode == "RGBA" else scene().convert("L").convert("RGB"))
    share = np.asarray(alpha)[..., None] / 255
    found = decode(encoded(image, "PNG"), SAME)
    assert found.mode == mode
    assert far(found.pixels, (flat * share + 255 * (1 - share)).round()) <= 1
    gray = decode(encoded(image, "PNG"), GRAY).pixels[..., 0]
    assert far(gray[:, 0], np.full(20, 255)) == 0


def test_a_transparent_colour_is_white_in_a_palette_and_in_gray():
    palette = Image.fromarray(np.array([[0, 1], [2, 0]], dtype=np.uint8), mode="P")
    palette.putpalette([9, 9, 9, 250, 0, 0, 0, 0, 250])
    two = ImageFormat(2)
    for transparency in (0, bytes([0, 255, 255])):
        for file_format in ("PNG", "GIF") if transparency == 0 else ("PNG",):
            found = decode(encoded(palette, file_format, transparency=transparency), two)
            assert found.mode == "P"
            assert found.pixels.tolist() == [
                [[255, 255, 255], [250, 0, 0]],
                [[0, 0, 250], [255, 255, 255]],
            ]
    plain = decode(encoded(palette, "PNG"), two).pixels
    assert plain[0, 0].tolist() == [9, 9, 9]
    gray = Image.fromarray(np.array([[7, 100]], dtype=np.uint8))
    found = decode(encoded(gray, "PNG", transparency=7), ImageFormat((1, 2), channels=1))
    assert found.pixels.ravel().tolist() == [255, 100]


def test_cmyk_is_seen_as_colour():
    image = Image.merge("CMYK", [Image.new("L", (30, 20), ink) for ink in (0, 255, 255, 0)])
    for file_format in ("JPEG", "TIFF"):
        found = decode(encoded(image, file_format), SAME)
        assert found.mode == "CMYK"
        assert far(found.pixels, np.full((20, 30, 3), (255, 0, 0))) <= 2
        assert far(decode(encoded(image, file_format), GRAY).pixels, np.full((20, 30, 1), 76)) <= 2


def test_one_bit_is_black_and_white():
    image = Image.fromarray(np.arange(600).reshape(20, 30) % 3 == 0)
    found = decode(encoded(image, "PNG"), GRAY)
    assert found.mode == "1"
    assert far(found.pixels[..., 0], (np.arange(600).reshape(20, 30) % 3 == 0) * 255) == 0


@pytest.mark.parametrize(
    ("top", "kind", "file_format"),
    [
        (65535, np.uint16, "PNG"),
        (65535, np.uint16, "TIFF"),
        (65535, np.int32, "PPM"),
        (65535, np.int32, "TIFF"),
        (255, np.int32, "TIFF"),
        (2**31 - 1, np.int32, "TIFF"),
        (1, np.float32, "TIFF"),
        (255, np.float32, "TIFF"),
        (65535, np.float32, "TIFF"),
    ],
)
def test_gray_of_many_bits_keeps_its_range(top, kind, file_format):
    image = Image.fromarray((RAMP * top).astype(kind))
    found = decode(encoded(image, file_format), GRAY).pixels[..., 0]
    assert far(found, (RAMP * 255).round()) <= 1
    assert far(decode(encoded(image, file_format), SAME).pixels[..., 2], found) == 0


def test_a_dark_picture_of_16_bits_stays_dark():
    image = Image.fromarray(np.full((20, 30), 200, dtype=np.uint16))
    assert int(decode(encoded(image, "PNG"), GRAY).pixels.max()) == 1


def test_values_out_of_any_range():
    values = np.where(RAMP < 0.5, -3, 1).astype(np.float32)
    found = decode(encoded(Image.fromarray(values), "TIFF"), GRAY).pixels[..., 0]
    assert far(found, (values > 0) * 255) == 0
    values[0, 0] = np.nan
    with pytest.raises(ImageError, match="not finite"):
        decode(encoded(Image.fromarray(values), "TIFF"), GRAY)


def test_an_animation_is_its_first_frame():
    others = [Image.new("RGB", (30, 20), colour) for colour in ("blue", "green")]
    red = Image.new("RGB", (30, 20), "red")
    for file_format in ("GIF", "PNG", "WEBP", "TIFF"):
        content = encoded(
            red, file_format, save_all=True, append_images=others, **{"lossless": True}
        )
        assert far(decode(content, SAME).pixels, np.full((20, 30, 3), (255, 0, 0))) == 0


def test_a_single_pixel_fills_the_image():
    for size in ((1, 1), (1, 50), (50, 1)):
        content = encoded(Image.new("RGB", size, (10, 20, 30)), "PNG")
        for options in ({}, {"resize": 40}, {"fit": "squash"}, {"resize": 40, "fit": "squash"}):
            pixels = decode(content, ImageFormat(32, **options)).pixels
            assert far(pixels, np.full((32, 32, 3), (10, 20, 30))) == 0


@pytest.mark.parametrize("size", [(300, 200), (200, 300), (97, 501)])
def test_scaled_and_cropped_like_torchvision(size):
    noise = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    for image in (scene(*size), Image.fromarray(noise)):
        found = decode(encoded(image, "PNG"), ImageFormat(56, resize=64)).pixels
        expected = functional.center_crop(functional.resize(image, 64), 56)
        assert far(found, expected) <= 1
        squashed = decode(encoded(image, "PNG"), ImageFormat(56, resize=64, fit="squash")).pixels
        expected = functional.center_crop(image.resize((64, 64), Image.Resampling.BILINEAR), 56)
        assert far(squashed, expected) <= 1


def test_a_large_jpeg_is_not_decoded_in_full_and_looks_the_same(monkeypatch):
    draws = np.random.default_rng(0).integers(0, 256, (30, 45, 3), dtype=np.uint8)
    image = Image.fromarray(draws).resize((900, 600), Image.Resampling.BICUBIC)
    content = encoded(image, "JPEG", quality=92)
    exact = np.asarray(Image.open(BytesIO(content)).convert("RGB").resize((96, 64), 2)).astype(int)
    sizes = []
    resize = Image.Image.resize
    monkeypatch.setattr(
        Image.Image,
        "resize",
        lambda self, *arguments, **named: (
            sizes.append(self.size) or resize(self, *arguments, **named)
        ),
    )
    found = decode(content, ImageFormat((64, 96))).pixels
    assert sizes == [(225, 150)]  # a quarter, and still more than twice 96 x 64
    assert np.abs(found - exact).mean() < 1
    assert far(found, exact) <= 12


@pytest.mark.parametrize(
    ("side", "bound"), [(224, 0.01), (64, 1.5)], ids=["decoded in full", "decoded at half size"]
)
def test_photographs_look_as_if_decoded_in_full(side, bound):
    for content in (resources.files("sklearn.datasets.images") / name for name in PHOTOGRAPHS):
        image = Image.open(BytesIO(content.read_bytes()))
        exact = functional.center_crop(functional.resize(image, side), side)
        found = decode(content.read_bytes(), ImageFormat(side))
        assert (found.width, found.height) == image.size == (640, 427)
        assert distance(found.pixels, exact) < bound


@pytest.mark.parametrize("content", [b"", b"\0", b"no image", b"%!PS-Adobe-3.0 EPSF-3.0\n" * 9])
def test_what_is_no_image(content):
    with pytest.raises(ImageError, match="the file is empty" if not content else "known format"):
        decode(content, SAME)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"])
def test_half_a_file_is_refused(file_format):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    content = encoded(Image.fromarray(noise), file_format)
    with pytest.raises(ImageError, match=r"damaged|known format"):
        decode(content[: len(content) // 2], SAME)


def test_too_many_pixels_are_refused_before_they_are_decoded(monkeypatch):
    content = encoded(scene(), "PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 600)
    decode(content, SAME)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 599)  # Pillow would only warn
    with pytest.raises(ImageError, match="it has 600 pixels, and no more than 599 are decoded"):
        decode(content, SAME)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)
    with pytest.raises(ImageError, match="it has more than 400 pixels"):
        decode(content, SAME)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    decode(content, SAME)


FILES = {
    "jpeg": encoded(scene(), "JPEG"),
    "png": encoded(scene(), "PNG"),
    "palette": encoded(scene().convert("P"), "PNG", transparency=bytes([0, 9])),
    "gif": encoded(scene(), "GIF"),
    "tiff": encoded(scene(), "TIFF", compression="tiff_lzw"),
    "webp": encoded(scene(), "WEBP"),
    "bmp": encoded(scene(), "BMP"),
    "16 bits": encoded(Image.fromarray((RAMP * 65535).astype(np.uint16)), "PNG"),
}


@settings(max_examples=120, deadline=None)
@given(st.sampled_from(sorted(FILES)), st.randoms(use_true_random=False), st.integers(0, 4))
def test_any_damage_ends_in_pixels_or_in_a_sentence(kind, random, changes):
    content = bytearray(FILES[kind])
    for _ in range(changes):
        content[random.randrange(len(content))] = random.randrange(256)
    if random.random() < 0.3:
        del content[random.randrange(len(content)) :]
    try:
        shape = decode(bytes(content), ImageFormat(16)).pixels.shape
    except ImageError:
        return
    assert shape == (16, 16, 3)


def test_pillows_warnings_stay_inside_and_others_come_through(monkeypatch):
    # Warnings are errors in these tests: one of Pillow's would be taken for damage.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 599)
    filters = list(warnings.filters)
    with pytest.warns(Image.DecompressionBombWarning):
        Image.open(BytesIO(FILES["png"]))
    with pytest.raises(ImageError, match="no more than 599"):
        decode(FILES["png"], SAME)
    assert warnings.filters == filters


def test_threads_leave_the_filters_as_they_were():
    filters, states = list(warnings.filters), (random.getstate(), np.random.get_state()[1].copy())  # noqa: NPY002
    failures = []

    def work() -> None:
        for _ in range(40):
            try:
                decode(FILES["palette"], SAME)
            except BaseException as error:
                failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert warnings.filters == filters
    assert random.getstate() == states[0]
    assert (np.random.get_state()[1] == states[1]).all()  # noqa: NPY002
