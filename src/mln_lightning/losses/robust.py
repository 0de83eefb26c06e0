"""Robust losses on observed labels: logits ``(B, C)`` and labels ``(B,)`` int64 ↦ ``()``.

p is the prediction, y the observed label. All are written in log p_y, so that none of them loses
its gradient where p_y underflows.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from mln_lightning.losses.soft import entropy


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
