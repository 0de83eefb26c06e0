"""Losses corrected by a transition matrix."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def forward_correction(logits: Tensor, labels: Tensor, *, transition: Tensor) -> Tensor:
    """−log Σ_c p_c · T[c, y]: cross-entropy of what a perfect prediction would be observed as.

    Patrini et al., CVPR 2017, theorem 2. Minimised, in expectation over observed labels, by the
    probabilities of the clean labels.

    Args:
        logits: ``(B, C)`` of the classifier.
        labels: ``(B,)`` observed labels, in 0…C-1.
        transition: ``(C, C)``, rows sum to one; no label may be one that no class is observed
            as.

    Returns:
        ``()`` non-negative.
    """
    log_p = _log_softmax_at_least_as_precise(logits, transition)
    return -(log_p + transition.log().T[labels]).logsumexp(dim=1).mean()


def backward_correction(
    logits: Tensor, labels: Tensor, *, inverse: Tensor, floor: float = 0.0
) -> Tensor:
    """Σ_c T⁻¹[y, c] · (−log p_c): its mean over observed labels is the loss of the clean label.

    Patrini et al., CVPR 2017, theorem 1. Entries of the inverse are negative, so without a floor a
    network that can be sure of wrong labels drives it to −∞.

    Args:
        logits: ``(B, C)`` of the classifier.
        labels: ``(B,)`` observed labels, in 0…C-1.
        inverse: ``(C, C)``, T⁻¹.
        floor: probabilities below it count as this much, which bounds the loss of a class; the
            theorem holds for that loss too. The published code uses 1e-7. Zero is no bound.

    Returns:
        ``()`` of either sign.
    """
    log_p = _log_softmax_at_least_as_precise(logits, inverse)
    if floor:
        log_p = log_p.clamp(min=math.log(floor))
    return -(inverse[labels] * log_p).sum(dim=1).mean()


def _log_softmax_at_least_as_precise(logits: Tensor, table: Tensor) -> Tensor:
    # Under autocast logits are of half precision, too coarse for a logarithm of a probability.
    return logits.log_softmax(dim=1, dtype=torch.promote_types(logits.dtype, table.dtype))
