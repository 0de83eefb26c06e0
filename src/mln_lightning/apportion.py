"""Exact shares: fractional quotas → whole numbers with the same sum."""

from __future__ import annotations

import torch
from torch import Tensor

_DECIMALS = 9  # 500 · 0.6 is 299.999…94 in float64; quotas are taken to this many decimals


def largest_remainder(quotas: Tensor, *, generator: torch.Generator) -> Tensor:
    """Round quotas by Hamilton's method of largest remainders.

    Every quota is rounded down, and the units left over go to the largest remainders, so each
    result differs from its quota by less than one. Equal remainders are drawn by lot: a fixed order
    would favour the same classes again and again.

    Args:
        quotas: ``(K,)`` float64, not negative, with a whole sum.
        generator: CPU generator for the lots.

    Returns:
        ``(K,)`` int64 with the sum of the quotas.

    Raises:
        ValueError: a quota is negative or not finite, or the sum is not whole.
    """
    quotas = quotas.double()
    if not bool(torch.isfinite(quotas).all()) or bool((quotas < 0).any()):
        raise ValueError(f"Quotas must be finite and not negative, got {quotas.tolist()}.")
    total = round(float(quotas.sum()))
    if abs(float(quotas.sum()) - total) > 1e-6:
        raise ValueError(f"Quotas must add up to a whole number, got {float(quotas.sum())}.")
    quotas = quotas.round(decimals=_DECIMALS)
    counts = quotas.floor()
    remainders = (quotas - counts).round(decimals=_DECIMALS)
    lots = torch.randperm(len(quotas), generator=generator)
    ranked = lots[remainders[lots].argsort(descending=True, stable=True)]
    counts[ranked[: total - int(counts.sum())]] += 1
    return counts.long()
