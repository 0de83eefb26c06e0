"""Noise that depends on the image: part-dependent label noise."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.special import ndtr, ndtri

from mln_lightning.noise.base import Images
from mln_lightning.noise.checks import check_classes, check_images, check_rate
from mln_lightning.noise.thumbnails import thumbnails

_DEVIATION = 0.1  # of the images' noise rates
_SIDE = 32
_PIXEL_STEP = 2.0**-16
_WEIGHT_STEP = 2.0**-18


class InstanceNoise:
    """Instance-dependent noise in the form that the field compares on.

    Xia et al., "Part-dependent Label Noise: Towards Instance-dependent Label Noise", NeurIPS 2020,
    appendix: image i is wrong with its own probability q_i ~ Normal(rate, 0.1²), truncated to
    [0, 1]. Where a wrong label goes follows softmax(x_i · W_y) over the other classes, with a
    random projection W_y ~ Normal(0, 1) of shape (d, C) for each clean class y.

    x is the image with each channel shifted and scaled to mean 0 and deviation 1 over the data
    set. Images larger than 32 × 32 are averaged down to that: the recipe was made for such images,
    and W_y grows with their size.

    Truncation moves the mean of small rates, see `expected_instance_rate`. Rate 0 changes nothing,
    although the recipe itself would still spoil 8 % of the labels.

    Args:
        num_classes: C, at least 2.
        rate: 0 ≤ rate < 1.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(self, num_classes: int, rate: float) -> None:
        check_rate(num_classes, rate)
        self.num_classes = num_classes
        self.rate = rate

    def __call__(
        self, labels: Tensor, images: Images | None = None, *, generator: torch.Generator
    ) -> Tensor:
        """Draw observed labels.

        Args:
            labels: ``(N,)`` int64 clean labels in 0…C-1; not changed.
            images: the N images, looked at twice, a chunk at a time.
            generator: CPU generator, the only source of randomness.

        Returns:
            ``(N,)`` int64.

        Raises:
            ValueError: a label lies outside 0…C-1, or the images do not pair up with the labels.
        """
        check_classes(labels, self.num_classes)
        images = check_images(images, labels, noise="Instance-dependent noise")
        observed = labels.clone()
        if self.rate == 0 or not len(labels):
            return observed
        lots = torch.rand(3, len(labels), generator=generator, dtype=torch.float64)
        wrong = lots[0] < _truncated_normal(lots[1], self.rate)
        mean, deviation = _channel_moments(images)
        for clean in range(self.num_classes):
            rows = (wrong & (labels == clean)).nonzero().squeeze(1)
            weights: Tensor | None = None
            for chunk, pixels in thumbnails(images, rows, _SIDE):
                features = ((pixels - mean) / deviation).flatten(1)
                if weights is None:
                    weights = self._weights(features.shape[1], clean, generator)
                # Both factors are whole multiples of a power of two, so every sum of products is
                # exact: the labels do not depend on chunks, threads or the order of additions.
                scores = _on_grid(features, _PIXEL_STEP) @ weights
                limits = scores.softmax(dim=1).cumsum(dim=1)
                spots = lots[2, chunk, None] * limits[:, -1:]
                target = (limits <= spots).sum(dim=1).clamp(max=self.num_classes - 2)
                observed[chunk] = target + (target >= clean).long()  # the own class was left out
        return observed

    def _weights(self, size: int, clean: int, generator: torch.Generator) -> Tensor:
        """``(d, C - 1)`` projection onto the other classes."""
        shape = (size, self.num_classes)
        weights = torch.randn(shape, generator=generator, dtype=torch.float64)
        others = [label for label in range(self.num_classes) if label != clean]
        return _on_grid(weights[:, others], _WEIGHT_STEP)


def expected_instance_rate(rate: float) -> float:
    """Fraction of wrong labels that `InstanceNoise` makes on average: the truncated normal's mean.

    It is larger than the rate asked for where that is small: 0.101 for 0.05, 0.129 for 0.1, 0.206
    for 0.2, and 0.4 for 0.4.

    Args:
        rate: 0 ≤ rate < 1.
    """
    if rate == 0:
        return 0.0
    low, high = -rate / _DEVIATION, (1 - rate) / _DEVIATION
    density = (math.exp(-low * low / 2) - math.exp(-high * high / 2)) / math.sqrt(2 * math.pi)
    mass = (math.erf(high / math.sqrt(2)) - math.erf(low / math.sqrt(2))) / 2
    return rate + _DEVIATION * density / mass


def _truncated_normal(uniform: Tensor, rate: float) -> Tensor:
    """``(N,)`` uniform numbers → draws from Normal(rate, 0.1²) truncated to [0, 1]."""
    ends = torch.tensor([-rate, 1 - rate], dtype=torch.float64) / _DEVIATION
    low, high = ndtr(ends)
    draws: Tensor = rate + _DEVIATION * ndtri(low + uniform * (high - low))
    return draws.clamp(0, 1)


def _channel_moments(images: Images) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each channel, ``(K, 1, 1)`` float64."""
    count, total, squares = 0, torch.zeros(1), torch.zeros(1)
    for _, pixels in thumbnails(images, torch.arange(len(images)), _SIDE):
        count += pixels.numel() // pixels.shape[1]
        total = total + pixels.sum(dim=(0, 2, 3))
        squares = squares + pixels.square().sum(dim=(0, 2, 3))
    mean = total / count
    variance = squares / count - mean.square()
    # A constant channel says nothing; rounding must not make something of it.
    deviation = torch.where(variance > 1e-9, variance.clamp(min=1e-9).sqrt(), 1.0)
    return mean[:, None, None], deviation[:, None, None]


def _on_grid(values: Tensor, step: float) -> Tensor:
    return (values / step).round() * step
