"""Losses as pure functions: of logits and soft labels, and robust ones of logits and labels."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, nll_loss

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


def backward_correction(logits: Tensor, labels: Tensor, *, inverse: Tensor) -> Tensor:
    """Σ_c T⁻¹[y, c] · (−log p_c): its mean over observed labels is the loss of the clean label.

    Patrini et al., CVPR 2017, theorem 1. Entries of the inverse are negative, so there is no lower
    bound: a network that can be sure of wrong labels drives it to −∞.

    Args:
        logits: ``(B, C)`` of the classifier.
        labels: ``(B,)`` observed labels, in 0…C-1.
        inverse: ``(C, C)``, T⁻¹.

    Returns:
        ``()`` of either sign.
    """
    log_p = _log_softmax_at_least_as_precise(logits, inverse)
    return -(inverse[labels] * log_p).sum(dim=1).mean()


def _log_softmax_at_least_as_precise(logits: Tensor, table: Tensor) -> Tensor:
    # Under autocast logits are of half precision, too coarse for a logarithm of a probability.
    return logits.log_softmax(dim=1, dtype=torch.promote_types(logits.dtype, table.dtype))


def prior_kl(logits: Tensor) -> Tensor:
    """KL(uniform ‖ mean prediction of the batch), ``()``: keeps a class from taking all samples.

    Tanaka et al., CVPR 2018, with the uniform prior.

    Args:
        logits: ``(B, C)`` of the classifier.
    """
    log_mean = logits.log_softmax(dim=1).logsumexp(dim=0) - math.log(len(logits))
    return -log_mean.mean() - math.log(logits.shape[1])


# -- robust losses on observed labels: logits (B, C) and labels (B,) int64 ↦ () -----------------
# p is the prediction, y the observed label. All are written in log p_y, so that none of them
# loses its gradient where p_y underflows.


def log_likelihood(logits: Tensor, labels: Tensor) -> Tensor:
    """Log-probability log p_y of every sample, ``(B,)``."""
    return -cross_entropy(logits, labels, reduction="none")


def bootstrap_soft(logits: Tensor, labels: Tensor, *, beta: float = 0.95) -> Tensor:
    """Cross-entropy with β · label + (1 − β) · p; Reed et al., ICLR workshop 2015.

    The gradient flows through p in the target too: the second term is the prediction's entropy.

    Args:
        logits: ``(B, C)``.
        labels: ``(B,)`` observed labels.
        beta: β, 0…1; 1 is cross-entropy.

    Raises:
        ValueError: β is out of range.
    """
    _within("beta", beta, 0, 1)
    return beta * cross_entropy(logits, labels) + (1 - beta) * entropy(logits)


def bootstrap_hard(logits: Tensor, labels: Tensor, *, beta: float = 0.8) -> Tensor:
    """Cross-entropy with β · label + (1 − β) · one-hot of argmax p; Reed et al., 2015.

    Args:
        logits: ``(B, C)``.
        labels: ``(B,)`` observed labels.
        beta: β, 0…1; 1 is cross-entropy.

    Raises:
        ValueError: β is out of range.
    """
    _within("beta", beta, 0, 1)
    own = cross_entropy(logits, logits.argmax(dim=1))
    return beta * cross_entropy(logits, labels) + (1 - beta) * own


def box_cox(log_p: Tensor, q: float) -> Tensor:
    """L_q = (1 − p^q) / q of log-probabilities, of any shape; −log p as q → 0, 1 − p at q = 1.

    Zhang & Sabuncu, NeurIPS 2018, section 3.2.

    Args:
        log_p: log p.
        q: above 0, at most 1.

    Raises:
        ValueError: q is out of range.
    """
    if not 0 < q <= 1:
        raise ValueError(f"q must be above 0 and at most 1, got {q}.")
    return -torch.expm1(q * log_p) / q


def gce(logits: Tensor, labels: Tensor, *, q: float = 0.7) -> Tensor:
    """Generalised cross-entropy, the mean of L_q(p_y); see `box_cox`.

    Args:
        logits: ``(B, C)``.
        labels: ``(B,)`` observed labels.
        q: above 0, at most 1; towards 0 cross-entropy, at 1 the mean absolute error.
    """
    return box_cox(log_likelihood(logits, labels), q).mean()


def reverse_cross_entropy(logits: Tensor, labels: Tensor, *, log_zero: float = -4.0) -> Tensor:
    """Cross-entropy with prediction and label swapped, log 0 := A; it is −A (1 − p_y).

    Its sum over all labels is −A (C − 1) whatever the prediction, so symmetric noise does not move
    its minimum (Wang et al., ICCV 2019).

    Args:
        logits: ``(B, C)``.
        labels: ``(B,)`` observed labels.
        log_zero: A, negative.

    Raises:
        ValueError: A is not negative.
    """
    if not log_zero < 0:
        raise ValueError(f"log_zero must be negative, got {log_zero}.")
    return -log_zero * gce(logits, labels, q=1.0)


def sce(
    logits: Tensor, labels: Tensor, *, alpha: float = 0.1, beta: float = 1.0, log_zero: float = -4.0
) -> Tensor:
    """Symmetric cross-entropy, α · CE + β · RCE; Wang et al., ICCV 2019.

    Args:
        logits: ``(B, C)``.
        labels: ``(B,)`` observed labels.
        alpha: weight α of cross-entropy, at least 0.
        beta: weight β of the `reverse_cross_entropy`, at least 0.
        log_zero: A, negative.

    Raises:
        ValueError: an option is out of range.
    """
    _within("alpha", alpha, 0)
    _within("beta", beta, 0)
    reverse = reverse_cross_entropy(logits, labels, log_zero=log_zero)
    return alpha * cross_entropy(logits, labels) + beta * reverse


def normalized_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy over its sum for all C labels, in 0…1; that sum is 1 for every sample.

    Ma et al., ICML 2020.

    Args:
        logits: ``(B, C)``.
        labels: ``(B,)`` observed labels.
    """
    return (log_likelihood(logits, labels) / logits.log_softmax(dim=1).sum(dim=1)).mean()


def nce_rce(
    logits: Tensor, labels: Tensor, *, alpha: float = 1.0, beta: float = 1.0, log_zero: float = -4.0
) -> Tensor:
    """Active passive loss α · NCE + β · RCE, both noise tolerant; Ma et al., ICML 2020.

    Args:
        logits: ``(B, C)``.
        labels: ``(B,)`` observed labels.
        alpha: weight α of the active part, `normalized_cross_entropy`, at least 0.
        beta: weight β of the passive part, `reverse_cross_entropy`, at least 0.
        log_zero: A, negative.

    Raises:
        ValueError: an option is out of range.
    """
    _within("alpha", alpha, 0)
    _within("beta", beta, 0)
    reverse = reverse_cross_entropy(logits, labels, log_zero=log_zero)
    return alpha * normalized_cross_entropy(logits, labels) + beta * reverse


def _within(name: str, value: float, low: float, high: float | None = None) -> None:
    if value < low or (high is not None and value > high):
        allowed = f"{low} or more" if high is None else f"{low} to {high}"
        raise ValueError(f"{name} must be {allowed}, got {value}.")
