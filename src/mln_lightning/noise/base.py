"""What a noise model is, and how noise is measured."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from mln_lightning.batch import UNKNOWN


class Images(Protocol):
    """Images to look at by row, such as `mln_lightning.data.LabeledImages`."""

    def __len__(self) -> int:
        """N."""
        ...

    def fetch(self, rows: Tensor) -> Tensor:
        """``(B,)`` int64 rows → ``(B, K, H, W)`` uint8 images."""
        ...


class NoiseModel(Protocol):
    """Clean labels → observed labels, a function of its arguments only.

    It changes no argument, reads no global state and is applied once, to a whole training set.
    """

    def __call__(
        self, labels: Tensor, images: Images | None = None, *, generator: torch.Generator
    ) -> Tensor:
        """Draw observed labels.

        Args:
            labels: ``(N,)`` int64 clean labels; not changed.
            images: the N images, for noise that depends on them.
            generator: CPU generator, the only source of randomness.

        Returns:
            ``(N,)`` int64.

        Raises:
            ValueError: the labels or images do not fit the noise.
        """
        ...


def noise_rate(observed: Tensor, clean: Tensor) -> float:
    """Fraction of wrong labels among the labelled samples whose true class is known, 0…1.

    Args:
        observed: ``(N,)`` int64 or ``UNKNOWN``.
        clean: ``(N,)`` int64 or ``UNKNOWN``.

    Raises:
        ValueError: the lengths differ, or no true class is known.
    """
    known = _known(observed, clean)
    return float((observed[known] != clean[known]).double().mean())


def empirical_transition(observed: Tensor, clean: Tensor, num_classes: int) -> Tensor:
    """Measured ``T[i, j]``: the fraction of class i that is observed as class j.

    Args:
        observed: ``(N,)`` int64 in 0…C-1.
        clean: ``(N,)`` int64 in 0…C-1 or ``UNKNOWN``; unknown samples are left out.
        num_classes: C.

    Returns:
        ``(C, C)`` float64 whose rows sum to one; a class without samples keeps its label.

    Raises:
        ValueError: the lengths differ, or no true class is known.
    """
    known = _known(observed, clean)
    pairs = clean[known] * num_classes + observed[known]
    counts = torch.bincount(pairs, minlength=num_classes**2).view(num_classes, num_classes).double()
    sizes = counts.sum(dim=1, keepdim=True)
    unseen = torch.eye(num_classes, dtype=torch.float64)
    return torch.where(sizes > 0, counts / sizes.clamp(min=1), unseen)


def _known(observed: Tensor, clean: Tensor) -> Tensor:
    if observed.shape != clean.shape:
        raise ValueError(
            f"Observed and clean labels must pair up, got {len(observed)} and {len(clean)} of them."
        )
    known = (clean != UNKNOWN) & (observed != UNKNOWN)
    if not bool(known.any()):
        raise ValueError("The noise cannot be measured: no labelled image's class is known.")
    return known
