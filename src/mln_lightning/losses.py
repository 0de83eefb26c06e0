"""Losses as pure functions of logits and label log-probabilities."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

Reduction = Literal["batch", "element"]
"""``batch``: mean over samples of sums over classes. ``element``: mean over samples and classes, as
in the published code; C times smaller."""


def reduce(values: Tensor, reduction: Reduction) -> Tensor:
    """Reduce a ``(B, C)`` table of terms to a scalar; see `Reduction`."""
    if reduction == "batch":
        return values.sum(dim=1).mean()
    if reduction == "element":
        return values.mean()
    raise ValueError(f"reduction must be 'batch' or 'element', got {reduction!r}.")


def reverse_kl(
    logits: Tensor, log_soft: Tensor, *, reduction: Reduction = "batch", label_eps: float = 0.0
) -> Tensor:
    """KL(prediction ‖ soft label), the training loss of MetaLabelNet.

    Args:
        logits: ``(B, C)`` of the classifier.
        log_soft: ``(B, C)`` log-probabilities of the soft labels.
        reduction: see `Reduction`.
        label_eps: added to the soft label inside its logarithm; the published code uses 1e-10.
            Zero is exact.

    Returns:
        ``()`` non-negative (with ``label_eps`` 0).
    """
    log_p = logits.log_softmax(dim=1)
    if label_eps:
        log_soft = (log_soft.exp() + label_eps).log()
    return reduce(log_p.exp() * (log_p - log_soft), reduction)


def entropy(logits: Tensor, *, reduction: Reduction = "batch") -> Tensor:
    """Entropy of the prediction, ``()`` in nats; at most log C with the ``batch`` reduction.

    Args:
        logits: ``(B, C)`` of the classifier.
        reduction: see `Reduction`.
    """
    log_p = logits.log_softmax(dim=1)
    return -reduce(log_p.exp() * log_p, reduction)


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
