"""Channels of images: where they are in an array, and what is in them."""

from __future__ import annotations

from collections.abc import Sequence

_CHANNELS = (1, 3, 4)

IMAGENET = {
    1: ((0.449,), (0.226,)),
    3: ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
"""Channels → mean and deviation of ImageNet's pixels, gray or red, green, blue, on a scale 0…1."""


def channels_last(shape: Sequence[int]) -> bool:
    """Whether a shape is (N, H, W, K) rather than (N, K, H, W), K being 1, 3 or 4."""
    return len(shape) == 4 and shape[1] not in _CHANNELS and shape[3] in _CHANNELS


def image_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """(K, H, W) of images whose array is (N, H, W), (N, H, W, K) or (N, K, H, W)."""
    if len(shape) == 3:
        return (1, *shape[1:])
    return (shape[3], *shape[1:3]) if channels_last(shape) else tuple(shape[1:])
