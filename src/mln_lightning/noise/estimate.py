"""Transition matrices estimated from the predictions of a network trained on observed labels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import one_hot

MAX_CONDITION = 100.0
"""Condition number from which on an inverse would amplify the errors of an estimate too much."""
_STEPS = 20  # from an estimate to the identity


def anchor_transition(probabilities: Tensor, *, quantile: float = 1.0) -> Tensor:
    """Row c is the prediction for the anchor of class c, the image most surely observed as c.

    Patrini et al., CVPR 2017, equations 12 and 13. Where an image's class is certain, what it is
    observed as follows row c of the matrix.

    Args:
        probabilities: ``(N, C)`` predicted observed labels, one row or more.
        quantile: 0…1, of the N probabilities of class c; the anchor is the image at this place, 1
            the surest. Slightly less keeps outliers out; 1 − (share of the class) or less would
            take an image of another class.

    Returns:
        ``(C, C)`` whose rows sum to one.
    """
    place = int(quantile * (len(probabilities) - 1))
    anchors = probabilities.sort(dim=0, stable=True).indices[place]
    rows = probabilities[anchors]
    return rows / rows.sum(dim=1, keepdim=True)


def meta_transition(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Row c is the mean prediction for the meta images of class c.

    Hendrycks et al., NeurIPS 2018, section 3.

    Args:
        probabilities: ``(m, C)`` predicted observed labels of the meta images.
        labels: ``(m,)`` int64 their clean labels.

    Returns:
        ``(C, C)`` whose rows sum to one; a class without meta images is taken to keep its label.
    """
    num_classes = probabilities.shape[1]
    members = one_hot(labels, num_classes).to(probabilities.dtype)  # (m, C)
    alone = torch.eye(num_classes, dtype=members.dtype, device=members.device)
    rows = torch.where(members.any(dim=0)[:, None], members.T @ probabilities, alone)
    return rows / rows.sum(dim=1, keepdim=True)


def inverse_transition(transition: Tensor) -> Tensor:
    """T⁻¹ ``(C, C)``.

    Args:
        transition: ``(C, C)``.

    Raises:
        ValueError: the condition number is above `MAX_CONDITION`.
    """
    condition = float(torch.linalg.cond(transition.double()))
    if not condition <= MAX_CONDITION:  # NaN included
        raise ValueError(
            "The transition matrix cannot be inverted reliably: its condition number is "
            f"{condition:.3g} and may be {MAX_CONDITION:g} at most; some classes are observed "
            "nearly alike, which only the forward correction survives (model=forward)."
        )
    inverse: Tensor = torch.linalg.inv(transition.double())
    return inverse.to(transition.dtype)


def invertible(transition: Tensor) -> Tensor:
    """The estimate, mixed with the identity as far as its condition number makes necessary.

    Args:
        transition: ``(C, C)``, rows sum to one.

    Returns:
        ``(C, C)`` (1 − w) · T + w · I for the smallest w of 0, 0.05, …, 1 with a condition number
        of at most `MAX_CONDITION`; the rows still sum to one.
    """
    eye = torch.eye(len(transition), dtype=transition.dtype, device=transition.device)
    weights = (step / _STEPS for step in range(_STEPS + 1))
    mixed = ((1 - weight) * transition + weight * eye for weight in weights)
    return next(m for m in mixed if float(torch.linalg.cond(m.double())) <= MAX_CONDITION)
