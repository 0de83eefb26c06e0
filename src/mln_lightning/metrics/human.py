"""How close predictions are to what many people see in an image."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

_SUM_TOLERANCE = 1e-4  # of a row: float32 softmax over a thousand classes is better than this
_SMALLEST = torch.finfo(torch.float32).tiny  # a float32 softmax may underflow to 0
_LEAST_AGREEMENT = 0.5  # of the soft labels' classes with the test labels


def human_agreement(probabilities: Tensor, human: Tensor) -> dict[str, float]:
    """Compare predictions with people's distributions over the classes; in nats, less is better.

    ``cross_entropy`` is the mean of −Σ h·log p, as in Peterson et al., *Human uncertainty makes
    classification more robust*, ICCV 2019; ``kl`` is the mean of KL(h ‖ p), the same less the
    entropy of h, which no prediction can do anything about.

    Args:
        probabilities: ``(N, C)`` predictions p, rows sum to one. Where p is less than the smallest
            normal float32 it counts as that, so that the results are finite.
        human: ``(N, C)`` distributions h, rows sum to one.

    Returns:
        ``cross_entropy`` and ``kl``.

    Raises:
        ValueError: the shapes differ, there is no image, or a row is no distribution.
    """
    if probabilities.shape != human.shape or probabilities.ndim != 2 or not len(human):
        raise ValueError(
            "Predictions and human labels must both be (N, C) with N above 0, got "
            f"{tuple(probabilities.shape)} and {tuple(human.shape)}."
        )
    p = probabilities.double()
    h = human.to(p)
    for name, rows in (("predictions", p), ("human labels", h)):
        _check_distributions(f"The {name}", rows)
    cross_entropy = -(h * p.clamp(min=_SMALLEST).log()).sum(dim=1).mean()
    entropy = -torch.xlogy(h, h).sum(dim=1).mean()
    return {"cross_entropy": float(cross_entropy), "kl": float(cross_entropy - entropy)}


def read_soft_labels(path: str | os.PathLike[str], labels: Tensor) -> Tensor:
    """Read people's distributions over the classes of the test images, such as CIFAR-10H.

    Args:
        path: ``.npy`` file of an ``(N, C)`` array whose rows sum to one, in the order of the test
            set; for CIFAR-10H its ``cifar10h-probs.npy``.
        labels: ``(N,)`` int64 clean test labels; the most likely class must mostly be these.

    Returns:
        ``(N, C)`` float64.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file cannot be read, is no array of distributions, or is about other images.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There are no soft test labels at {path}.")
    try:
        with path.open("rb") as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{path} cannot be read as an array: {error}.") from error
    if array.ndim != 2 or len(array) != len(labels) or array.dtype.kind not in "iuf":
        raise ValueError(
            f"{path} must hold a distribution for each of the {len(labels)} test images, it holds "
            f"{array.dtype} {array.shape}."
        )
    rows = torch.from_numpy(array.astype("<f8"))
    if len(labels) and int(labels.max()) >= rows.shape[1]:
        raise ValueError(
            f"{path} knows {rows.shape[1]} classes, the test labels go up to {int(labels.max())}."
        )
    _check_distributions(str(path), rows, advice=" Divide counts by the sums of their rows.")
    agreement = float((rows.argmax(dim=1) == labels).double().mean())
    if agreement < _LEAST_AGREEMENT:
        raise ValueError(
            f"The most likely class in {path} is the test label for {agreement:.1%} of the images "
            "only: it belongs to other images, or to another order of them."
        )
    return rows


def _check_distributions(name: str, rows: Tensor, *, advice: str = "") -> None:
    """Refuse rows that are negative, not finite, or do not sum to one."""
    wrong = ~((rows >= 0).all(dim=1) & ((rows.sum(dim=1) - 1).abs() <= _SUM_TOLERANCE))
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        raise ValueError(
            f"{name} must be probabilities with rows that sum to 1; row {row} has "
            f"{float(rows[row].min()):.4g} as its least and sums to {float(rows[row].sum()):.6g}."
            f"{advice}"
        )
