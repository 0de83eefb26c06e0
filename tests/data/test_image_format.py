import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import functional

from mln_lightning.data import ImageFormat

sides = st.integers(1, 3000)


@settings(max_examples=60, deadline=None)
@given(sides, sides, st.integers(1, 300), st.none() | st.integers(0, 100), st.booleans())
def test_the_crop_lies_within_the_scaled_image(width, height, size, margin, squash):
    resize = None if margin is None else size + margin
    image_format = ImageFormat(size, resize=resize, fit="squash" if squash else "crop")
    cut = image_format.cut(width, height)
    left, upper, right, lower = cut.box
    assert cut.size == (right - left, lower - upper) == (size, size)
    assert 0 <= left <= right <= cut.scaled[0]
    assert 0 <= upper <= lower <= cut.scaled[1]
    # In the centre, up to the half pixel that cannot be shared.
    assert abs(left - (cut.scaled[0] - right)) <= 1
    assert abs(upper - (cut.scaled[1] - lower)) <= 1
    assert min(cut.scaled) == (size if resize is None else resize)
    if squash:
        assert cut.scaled[0] == cut.scaled[1]


@pytest.mark.parametrize("width", [1, 37, 99, 100, 101, 333])
@pytest.mark.parametrize("height", [1, 50, 100, 217])
@pytest.mark.parametrize("resize", [32, 41])
def test_scales_to_the_size_torchvision_scales_to(width, height, resize):
    image = functional.resize(Image.new("L", (width, height)), resize)
    assert ImageFormat(32, resize=resize).cut(width, height).scaled == image.size


@settings(max_examples=40, deadline=None)
@given(sides, sides, st.integers(1, 300), st.integers(1, 300))
def test_a_rectangle_is_covered_and_no_more(width, height, rows, columns):
    image_format = ImageFormat((rows, columns))
    scaled = image_format.cut(width, height).scaled
    assert image_format.shape == (3, rows, columns)
    assert scaled[0] >= columns
    assert scaled[1] >= rows
    assert scaled[0] == columns or scaled[1] == rows
    # Both sides by one factor, up to the rounding of the longer one.
    assert abs(scaled[0] * height - scaled[1] * width) <= max(width, height)


def test_a_list_of_a_configuration_file_is_a_size():
    image_format = ImageFormat([20, 30], channels=1)
    assert image_format.shape == (1, 20, 30)
    assert image_format == ImageFormat((20, 30), channels=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "one positive number"),
        ({"size": (1, 2, 3)}, "one positive number"),
        ({"size": 64, "resize": 63}, "at least as large as size"),
        ({"size": (64, 80), "resize": 72}, "scaled to 72 and then cropped to 80"),
        ({"fit": "stretch"}, "crop or squash, got 'stretch'"),
        ({"channels": 4}, "1 or 3 channels, got 4"),
    ],
)
def test_refuses_what_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        ImageFormat(**options)
