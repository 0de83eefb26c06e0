"""Losses as pure functions."""

from __future__ import annotations

from mln_lightning.losses.robust import (
    bootstrap_hard,
    bootstrap_soft,
    box_cox,
    gce,
    log_likelihood,
    nce_rce,
    normalized_cross_entropy,
    reverse_cross_entropy,
    sce,
)
from mln_lightning.losses.soft import (
    Reduction,
    compatibility,
    entropy,
    forward_kl,
    prior_kl,
    reduce,
    reverse_kl,
)
from mln_lightning.losses.transition import backward_correction, forward_correction

__all__ = [
    "Reduction",
    "backward_correction",
    "bootstrap_hard",
    "bootstrap_soft",
    "box_cox",
    "compatibility",
    "entropy",
    "forward_correction",
    "forward_kl",
    "gce",
    "log_likelihood",
    "nce_rce",
    "normalized_cross_entropy",
    "prior_kl",
    "reduce",
    "reverse_cross_entropy",
    "reverse_kl",
    "sce",
]
