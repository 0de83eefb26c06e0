"""Each operation against torchvision's, on single images of three shapes."""

import math

import pytest
import torch
from PIL import ImageEnhance
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as reference

from mln_lightning.data.image_ops import Amounts, recolour, warp
from mln_lightning.seeding import generator

shapes = pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (3, 20, 37)])
SIZE = 6


def images(shape, seed=0):
    """Noise, and smooth images of few levels, so that there is something to stretch."""
    noise = torch.randint(256, (SIZE, *shape), dtype=torch.uint8, generator=generator(seed))
    noise[::2] = noise[::2] // 3 + 60
    return noise


def amounts(size=SIZE, **chosen):
    given = {name: torch.zeros(size) for name in Amounts._fields}
    for name, value in chosen.items():
        given[name] = torch.as_tensor(value, dtype=torch.float32).expand(size)
    return Amounts(**given)


def assert_close(found, expected, *, share):
    """No pixel is off by more than one level, and at most a share of them by that."""
    assert found.dtype == torch.uint8
    off = (found.int() - expected.int()).abs()
    assert off.max() <= 1
    assert (off > 0).float().mean() <= share


def affine(image, translate=(0, 0), shear=(0.0, 0.0)):
    return reference.affine(
        image, 0.0, list(translate), 1.0, list(shear), InterpolationMode.BILINEAR
    )


def degrees(slope):
    return math.degrees(math.atan(slope))


# Angles as torchvision turns them, shears about the centre, shifts into the image.
GEOMETRY = {
    "rotate": lambda x, a: reference.rotate(x, 30 * a, InterpolationMode.BILINEAR),
    "shear_x": lambda x, a: affine(x, shear=(degrees(0.3 * a), 0.0)),
    "shear_y": lambda x, a: affine(x, shear=(0.0, degrees(0.3 * a))),
    "translate_x": lambda x, a: affine(x, (-a * 150 / 331 * x.shape[2], 0)),
    "translate_y": lambda x, a: affine(x, (0, -a * 150 / 331 * x.shape[1])),
}


@shapes
@pytest.mark.parametrize("kind", GEOMETRY)
@pytest.mark.parametrize("amount", [1.0, 0.62, -0.37, -1.0])
def test_geometry(shape, kind, amount):
    """Halves are rounded either way: up to 5 % of the pixels differ by one level."""
    batch = images(shape)
    found = warp(batch, amounts(**{kind: amount}), fill=0)
    for image, result in zip(batch, found, strict=True):
        assert_close(result, GEOMETRY[kind](image, amount), share=0.05)


def contrast(image, factor):
    """PIL's, which rounds the mean of the greys; torchvision's own does not on tensors."""
    changed = ImageEnhance.Contrast(reference.to_pil_image(image)).enhance(factor)
    return reference.pil_to_tensor(changed)


COLOURS = {
    "colour": (lambda x, a: reference.adjust_saturation(x, 1 + 0.9 * a), 0.05),
    "sharpness": (lambda x, a: reference.adjust_sharpness(x, 1 + 0.9 * a), 0.05),
    "contrast": (lambda x, a: contrast(x, 1 + 0.9 * a), 0.05),
    "brightness": (lambda x, a: reference.adjust_brightness(x, 1 + 0.9 * a), 0.001),
    "posterize": (lambda x, a: reference.posterize(x, 8 - round(4 * abs(a))), 0.0),
    "solarize": (lambda x, a: reference.solarize(x, 256 * (1 - abs(a))), 0.0),
    "autocontrast": (lambda x, a: reference.autocontrast(x), 0.0),
    "equalize": (lambda x, a: reference.equalize(x), 0.0),
}
ONE_SIDED = ("posterize", "solarize", "autocontrast", "equalize")


@shapes
@pytest.mark.parametrize("kind", COLOURS)
@pytest.mark.parametrize("amount", [1.0, 0.62, -0.37, -1.0])
def test_colours(shape, kind, amount):
    batch = images(shape)
    given = math.ceil(abs(amount)) if kind in ("autocontrast", "equalize") else amount
    found = recolour(batch, amounts(**{kind: abs(given) if kind in ONE_SIDED else given}))
    expected, share = COLOURS[kind]
    for image, result in zip(batch, found, strict=True):
        assert_close(result, expected(image, amount), share=share)


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (3, 224, 160), (4, 5, 9), (3, 2, 1)])
@pytest.mark.parametrize("fill", [0, 128, 255])
def test_nothing_at_all_changes_no_bit(shape, fill):
    batch = images(shape)
    before = batch.clone()
    for nothing in (amounts(), amounts(identity=1)):
        assert torch.equal(recolour(batch, nothing), batch)
        assert torch.equal(warp(batch, nothing, fill=fill), batch)
    assert torch.equal(batch, before)


def test_images_of_one_level():
    batch = torch.full((4, 3, 8, 8), 90, dtype=torch.uint8)
    for kind in ("autocontrast", "equalize", "sharpness", "colour"):
        assert torch.equal(recolour(batch, amounts(4, **{kind: 1})), batch)
    assert torch.equal(recolour(batch, amounts(4, contrast=-1)), batch)


def test_grey_images_have_no_colour_to_change():
    for grey in (images((1, 9, 9)), images((1, 9, 9)).expand(-1, 3, -1, -1)):
        for amount in (-1, 0.7):
            assert_close(
                recolour(grey, amounts(colour=amount)), grey, share=0.0 if grey.shape[1] == 1 else 1
            )


def test_each_image_gets_its_own_amounts():
    batch = images((3, 16, 12))
    draws = generator(1)
    mixed = Amounts(*(torch.rand(SIZE, generator=draws) for _ in Amounts._fields))
    whole = warp(recolour(batch, mixed), mixed, fill=9)
    for row in range(SIZE):
        own = Amounts(*(amount[row : row + 1] for amount in mixed))
        one = batch[row : row + 1]
        assert torch.equal(warp(recolour(one, own), own, fill=9), whole[row : row + 1])


def test_levels_in_their_order():
    """Autocontrast, equalize, contrast, brightness, solarize, posterize, with one table."""
    batch = images((1, 20, 20))
    image = batch[0]
    steps = (
        ("autocontrast", 1, lambda x: reference.autocontrast(x)),
        ("equalize", 1, lambda x: reference.equalize(x)),
        ("brightness", -0.5, lambda x: reference.adjust_brightness(x, 0.55)),
        ("solarize", 0.75, lambda x: reference.solarize(x, 64)),
        ("posterize", 0.5, lambda x: reference.posterize(x, 6)),
    )
    given = {}
    for name, amount, step in steps:
        given[name] = amount
        image = step(image)
        assert torch.equal(recolour(batch, amounts(**given))[0], image)


def test_moves_in_their_order():
    """A pixel comes from where shear y, shear x, turn and shift lead, one after the other."""
    batch = images((1, 21, 33))
    given = {"rotate": 0.8, "shear_x": -0.7, "shear_y": 0.9, "translate_x": 0.2}
    found = warp(batch, amounts(**given), fill=0)
    angle = math.radians(30 * 0.8)
    cos, sin = math.cos(angle), math.sin(angle)
    for y, x in ((10, 16), (4, 20), (15, 9)):
        across, down = x - 16, y - 10
        down = down + 0.3 * 0.9 * across
        across = across - 0.3 * 0.7 * down
        across, down = cos * across - sin * down, sin * across + cos * down
        column, row = 16 + across + 0.2 * 150 / 331 * 33, 10 + down
        left, top = math.floor(column), math.floor(row)
        u, v = column - left, row - top
        square = batch[:, 0, top : top + 2, left : left + 2].double()
        weights = torch.tensor([[(1 - u) * (1 - v), u * (1 - v)], [(1 - u) * v, u * v]])
        expected = (square * weights).sum((1, 2))
        assert (found[:, 0, y, x] - expected).abs().max() < 0.51


def test_fill_comes_in_from_outside():
    batch = images((3, 30, 30))
    moved = warp(batch, amounts(translate_x=331 / 150 / 3), fill=77)  # ten pixels to the left
    assert torch.equal(moved[..., :20], batch[..., 10:])
    assert (moved[..., 20:] == 77).all()
