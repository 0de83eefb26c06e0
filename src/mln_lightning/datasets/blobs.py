"""A tiny synthetic data set, for tests."""

from __future__ import annotations

import torch

from mln_lightning.data.source import ImageArrays, Splits
from mln_lightning.seeding import generator

_SIZE = 8


def blobs(
    num_train: int = 400,
    num_test: int = 200,
    num_classes: int = 4,
    spread: float = 40.0,
    seed: int = 0,
) -> Splits:
    """One random 8 × 8 pattern per class, with pixel noise.

    Args:
        num_train: training images, classes equally often to within one.
        num_test: test images.
        num_classes: C.
        spread: standard deviation of the pixel noise in grey values.
        seed: seed of patterns and noise.
    """
    draws = generator(seed)
    patterns = torch.rand(num_classes, 1, _SIZE, _SIZE, generator=draws) * 255

    def part(size: int) -> ImageArrays:
        labels = (torch.arange(size) % num_classes)[torch.randperm(size, generator=draws)]
        noise = torch.randn(size, 1, _SIZE, _SIZE, generator=draws) * spread
        return ImageArrays((patterns[labels] + noise).clamp(0, 255).round().byte(), labels, labels)

    return Splits(train=part(num_train), test=part(num_test))
