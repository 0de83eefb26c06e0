"""Which samples to trust, told by their losses."""

from __future__ import annotations

import math

from torch import Tensor


def keep_rate(epoch: int, *, forget_rate: float, ramp_epochs: int) -> float:
    """R = 1 − τ · min(e / T_k, 1): the share of a batch that is kept, falling from 1 to 1 − τ.

    Han et al., NeurIPS 2018, with the exponent c = 1.

    Args:
        epoch: e, epochs that are over: 0, 1, …
        forget_rate: τ, in [0, 1).
        ramp_epochs: T_k, at least 0.
    """
    ramp = min(epoch / ramp_epochs, 1.0) if ramp_epochs else 1.0
    return 1.0 - forget_rate * ramp


def small_loss(losses: Tensor, rate: float) -> Tensor:
    """The samples with the smallest losses: as few as make up at least ``rate`` of all.

    Args:
        losses: ``(n,)``.
        rate: in (0, 1].

    Returns:
        ``(k,)`` int64 rows, k = ⌈rate · n⌉, the smallest loss first; of equal losses the earlier.
    """
    number = math.ceil(rate * len(losses) - 1e-9)  # (1 − 0.7) · 10 is a little more than 3
    return losses.detach().argsort(stable=True)[:number]
