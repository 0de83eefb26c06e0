"""Which samples to trust, told by their losses."""

from __future__ import annotations

import math
import warnings

import torch
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


def clean_probability(losses: Tensor) -> Tensor:
    """How likely each loss belongs to the lower of two normal distributions.

    A mixture of two is fitted to the losses, scaled to 0…1 (Arazo et al., ICML 2019; with normal
    distributions Li, Socher & Hoi, ICLR 2020). Losses that are all equal tell nothing against any
    sample: 1 for all.

    Args:
        losses: ``(n,)``.

    Returns:
        ``(n,)`` posterior probabilities of the component with the smaller mean.

    Raises:
        ValueError: a loss is not finite.
    """
    from sklearn.exceptions import ConvergenceWarning  # takes a second; few methods need it
    from sklearn.mixture import GaussianMixture

    if not bool(losses.isfinite().all()):
        raise ValueError("A sample's loss is not finite; lower the learning rate.")
    if len(losses) < 2 or bool(losses.min() == losses.max()):
        return torch.ones_like(losses)
    low = losses.min()
    scaled = ((losses - low) / (losses.max() - low)).double().cpu().numpy()[:, None]
    mixture = GaussianMixture(2, max_iter=10, tol=1e-2, reg_covar=5e-4, random_state=0)
    with warnings.catch_warnings():  # ten iterations are what the published code takes
        warnings.simplefilter("ignore", ConvergenceWarning)
        posterior = mixture.fit(scaled).predict_proba(scaled)
    return torch.from_numpy(posterior[:, mixture.means_.argmin()]).to(losses)
