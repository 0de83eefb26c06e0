"""Operations of strong augmentation on a batch, each image with its own amount of each.

Everything that moves pixels is one affine map per image and one resampling; everything that maps a
grey level to another one is one table per image and channel, looked up once. The amounts stay on
the device of the images: nothing here waits for it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

_LEVELS = 256
_LUMA = (0.2989, 0.587, 0.114)  # ITU-R BT.601, as in PIL and torchvision

# The strongest of each, amount 1: table 6 of Cubuk et al., "AutoAugment" (CVPR 2019), which
# RandAugment keeps; torchvision's RandAugment has the same.
_ANGLE = math.radians(30)
_SHEAR = 0.3
_SHIFT = 150 / 331  # of the side
_FACTOR = 0.9  # of colour, contrast, brightness and sharpness, around 1
_LOST_BITS = 4


class Amounts(NamedTuple):
    """How much of each operation an image gets: ``(B,)`` float32, where 0 is nothing at all.

    The first nine are in -1…1, ``posterize`` and ``solarize`` in 0…1; the last three are 0 or 1.
    """

    rotate: Tensor
    shear_x: Tensor
    shear_y: Tensor
    translate_x: Tensor
    translate_y: Tensor
    colour: Tensor
    sharpness: Tensor
    contrast: Tensor
    brightness: Tensor
    posterize: Tensor
    solarize: Tensor
    autocontrast: Tensor
    equalize: Tensor
    identity: Tensor


def recolour(images: Tensor, amounts: Amounts) -> Tensor:
    """Colour, sharpness, then autocontrast, equalize, contrast, brightness, solarize, posterize.

    Args:
        images: ``(B, K, H, W)`` uint8; not changed.
        amounts: what each image gets.

    Returns:
        ``(B, K, H, W)`` uint8.
    """
    pixels = images.float()
    grey = _luma(pixels).floor_().unsqueeze(1)
    pixels = _blend(pixels, grey, _factor(amounts.colour))
    if min(pixels.shape[2:]) > 2:
        inner = pixels[:, :, 1:-1, 1:-1]
        inner.copy_(_blend(inner, _smooth(pixels), _factor(amounts.sharpness)))
    values = pixels.flatten(2).long()
    histogram = values.new_zeros(*values.shape[:2], _LEVELS)
    histogram.scatter_add_(2, values, values.new_ones(()).expand_as(values))
    return _table(histogram, amounts).gather(2, values).view_as(images)


def warp(images: Tensor, amounts: Amounts, *, fill: int) -> Tensor:
    """Rotate, shear and shift about the centre, with bilinear interpolation.

    Args:
        images: ``(B, K, H, W)`` uint8; not changed.
        amounts: what each image gets.
        fill: level of what comes in from outside.

    Returns:
        ``(B, K, H, W)`` uint8.
    """
    height, width = images.shape[2:]
    turn, slant_x, slant_y, shift_x, shift_y = (_column(amount) for amount in amounts[:5])
    cos, sin = (turn * _ANGLE).cos(), (turn * _ANGLE).sin()
    slant_x, slant_y = slant_x * _SHEAR, slant_y * _SHEAR
    # Where a pixel comes from: sheared in y, then in x, then turned, then shifted. The sides are
    # -1…1 for grid_sample, hence the aspect. No matrix product: some devices round its inputs.
    both, aspect = 1 + slant_x * slant_y, height / width
    across, down = _centres(width, images.device), _centres(height, images.device).unsqueeze(1)
    x = (cos * both - sin * slant_y) * across + 2 * _SHIFT * shift_x
    y = (sin * both + cos * slant_y) / aspect * across + 2 * _SHIFT * shift_y
    x = x + (cos * slant_x - sin) * aspect * down
    y = y + (sin * slant_x + cos) * down
    grid = torch.stack([x, y], dim=3)
    moved = F.grid_sample(images.float() - fill, grid, align_corners=False)
    return moved.add_(fill).round_().to(torch.uint8)


def _table(histogram: Tensor, amounts: Amounts) -> Tensor:
    """New level of each old one, from how often the old ones occur.

    Args:
        histogram: ``(B, K, 256)`` int64.
        amounts: what each image gets.

    Returns:
        ``(B, K, 256)`` uint8.
    """
    old = torch.arange(_LEVELS, device=histogram.device)
    low = torch.where(histogram > 0, old, _LEVELS).amin(2, keepdim=True)
    high = torch.where(histogram > 0, old, -1).amax(2, keepdim=True)
    levels = old.expand_as(histogram).float()

    scale = (high - low) * (1 / (_LEVELS - 1))
    stretched = ((levels - low) / scale).clamp(0, _LEVELS - 1).floor()
    levels = torch.where((_column(amounts.autocontrast) > 0) & (high > low), stretched, levels)

    # Stretching keeps the order of the levels, so the old histogram will do.
    below = histogram.cumsum(2) - histogram
    step = below.gather(2, high) // (_LEVELS - 1)
    even = ((below + step // 2) // step.clamp(min=1)).clamp(max=_LEVELS - 1)
    levels = torch.where((_column(amounts.equalize) > 0) & (step > 0), even.float(), levels)

    pixels = histogram.sum(2)
    grey = _luma((histogram * levels.long()).sum(2) / pixels).round_()
    levels = _blend(levels, _column(grey), _factor(amounts.contrast, 3))
    levels = _blend(levels, torch.zeros_like(levels), _factor(amounts.brightness, 3))
    threshold = _LEVELS * (1 - _column(amounts.solarize))
    levels = torch.where(levels >= threshold, _LEVELS - 1 - levels, levels)
    bits = (_column(amounts.posterize) * _LOST_BITS).round().long()
    return (levels.long() >> bits << bits).to(torch.uint8)


def _luma(channels: Tensor) -> Tensor:
    """Brightness seen by the eye for three channels, else their mean: (B, K, …) → (B, …)."""
    number = channels.shape[1]
    weights = _LUMA if number == len(_LUMA) else (1 / number,) * number
    first, *others = (w * c for w, c in zip(weights, channels.unbind(1), strict=True))
    return sum(others, first)


def _smooth(pixels: Tensor) -> Tensor:
    """Each inner pixel, five parts, with its eight neighbours: PIL's filter for sharpness."""
    rows = pixels[:, :, :-2] + pixels[:, :, 1:-1] + pixels[:, :, 2:]
    blocks = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    return blocks.add_(pixels[:, :, 1:-1, 1:-1], alpha=4).div_(13).round_()


def _blend(pixels: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    """``other`` at factor 0, ``pixels`` unchanged at 1, away from ``other`` above; whole levels."""
    return torch.lerp(other, pixels, factor).clamp_(0, _LEVELS - 1).floor_()


def _factor(amount: Tensor, dims: int = 4) -> Tensor:
    """Around 1, with ``dims`` dimensions."""
    return (1 + _FACTOR * amount).view(-1, *(1,) * (dims - 1))


def _column(amount: Tensor) -> Tensor:
    return amount.view(-1, 1, 1)


def _centres(size: int, device: torch.device) -> Tensor:
    """Centres of the pixels of a line from -1 to 1."""
    return (2 * torch.arange(size, device=device) + 1) / size - 1
