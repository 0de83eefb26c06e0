"""Losses on predictions and soft labels."""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor
from torch.nn.functional import nll_loss

from mln_lightning.batch import UNKNOWN

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


def forward_kl(logits: Tensor, log_soft: Tensor, *, reduction: Reduction = "batch") -> Tensor:
    """KL(soft label ‖ prediction).

    The cross-entropy with the soft label is this plus the soft label's own entropy, which no
    prediction changes: its gradients in the logits are these, and so is its meta gradient.

    Args:
        logits: ``(B, C)`` of the classifier.
        log_soft: ``(B, C)`` log-probabilities of the soft labels.
        reduction: see `Reduction`.

    Returns:
        ``()`` non-negative.
    """
    return reduce(log_soft.exp() * (log_soft - logits.log_softmax(dim=1)), reduction)


def compatibility(log_soft: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of soft labels with the observed labels, ``()``; 0 if there are none.

    Args:
        log_soft: ``(B, C)`` log-probabilities of the soft labels.
        labels: ``(B,)`` int64 observed labels; samples without one (``UNKNOWN``) do not count.
    """
    known = (labels != UNKNOWN).sum().clamp(min=1)
    return nll_loss(log_soft, labels, ignore_index=UNKNOWN, reduction="sum") / known


def entropy(logits: Tensor, *, reduction: Reduction = "batch") -> Tensor:
    """Entropy of the prediction, ``()`` in nats; at most log C with the ``batch`` reduction.

    Args:
        logits: ``(B, C)`` of the classifier.
        reduction: see `Reduction`.
    """
    log_p = logits.log_softmax(dim=1)
    return -reduce(log_p.exp() * log_p, reduction)


def prior_kl(logits: Tensor) -> Tensor:
    """KL(uniform ‖ mean prediction of the batch), ``()``: keeps a class from taking all samples.

    Tanaka et al., CVPR 2018, with the uniform prior.

    Args:
        logits: ``(B, C)`` of the classifier.
    """
    log_mean = logits.log_softmax(dim=1).logsumexp(dim=0) - math.log(len(logits))
    return -log_mean.mean() - math.log(logits.shape[1])
