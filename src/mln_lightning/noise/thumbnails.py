"""Small copies of images, for noise that looks at them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from mln_lightning.noise.base import Images

_CHUNK = 256  # images; photographs of 224 × 224 then take 150 MB as float32


def thumbnails(images: Images, rows: Tensor, side: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Images averaged down to at most ``side`` pixels a side, chunk by chunk.

    Grey values are rounded to whole ones: sums of them are exact in float64, whatever the order.

    Args:
        images: to fetch from.
        rows: ``(n,)`` int64.
        side: larger images are averaged down to this, smaller ones stay as they are.

    Yields:
        ``(b,)`` int64 rows and ``(b, K, h, w)`` float64 whole numbers 0…255.
    """
    for chunk in torch.split(rows, _CHUNK):
        pixels = images.fetch(chunk).cpu()
        height, width = pixels.shape[2:]
        small = min(height, side), min(width, side)
        if small != (height, width):
            pixels = adaptive_avg_pool2d(pixels.float(), small).round()
        yield chunk, pixels.double()
