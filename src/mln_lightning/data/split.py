"""Stratified, seeded index splits."""

from __future__ import annotations

import torch
from torch import Tensor

from mln_lightning.apportion import largest_remainder


def stratified_split(
    strata: Tensor, size: int, *, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw ``size`` rows so that every class keeps its share, to within one row.

    Args:
        strata: ``(N,)`` int64 class of each row, 0, 1, …
        size: rows to draw, 0…N.
        generator: CPU generator, the only source of randomness.

    Returns:
        ``(size,)`` drawn and ``(N - size,)`` other rows, both int64 and ascending.

    Raises:
        ValueError: the size is out of range.
    """
    total = len(strata)
    if not 0 <= size <= total:
        raise ValueError(f"Cannot draw {size} of {total} samples.")
    drawn = torch.zeros(total, dtype=torch.bool)
    if size:
        sizes = torch.bincount(strata)
        counts = largest_remainder(sizes.double() * size / total, generator=generator)
        for stratum, count in enumerate(counts.tolist()):
            rows = (strata == stratum).nonzero().squeeze(1)
            drawn[rows[torch.randperm(len(rows), generator=generator)[:count]]] = True
    return drawn.nonzero().squeeze(1), (~drawn).nonzero().squeeze(1)
