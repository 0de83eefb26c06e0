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
    return rounded_to(total, quotas, torch.randperm(len(quotas), generator=generator))


def rounded_to(total: int, quotas: Tensor, lots: Tensor) -> Tensor:
    """`largest_remainder` for quotas whose sum need not be whole.

    Args:
        total: sum of the results, at least that of the quotas rounded down and at most that of the
            quotas rounded up.
        quotas: ``(K,)`` float64, not negative.
        lots: ``(K,)`` a permutation: of equal remainders, those named first get a unit first.

    Returns:
        ``(K,)`` int64 with the sum ``total``.
    """
    quotas = quotas.round(decimals=_DECIMALS)
    counts = quotas.floor()
    remainders = (quotas - counts).round(decimals=_DECIMALS)
    ranked = lots[remainders[lots].argsort(descending=True, stable=True)]
    counts[ranked[: total - int(counts.sum())]] += 1
    return counts.long()
