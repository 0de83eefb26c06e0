"""Noise that depends on the class alone: transition matrices and their sampling."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mln_lightning.apportion import largest_remainder
from mln_lightning.noise.base import Images


def symmetric(num_classes: int, rate: float) -> Tensor:
    """Every class turns into each *other* class with the same probability.

    The own class is excluded, so ``rate`` is the expected fraction of wrong labels. Rate 0 is the
    identity.

    Args:
        num_classes: C, at least 2.
        rate: 0 ≤ rate < 1.

    Returns:
        ``(C, C)`` float64, rows sum to one.

    Raises:
        ValueError: an argument is out of range.
    """
    _check(num_classes, rate)
    matrix = torch.full((num_classes, num_classes), rate / (num_classes - 1), dtype=torch.float64)
    return matrix.fill_diagonal_(1 - rate)


def asymmetric(num_classes: int, rate: float, flips: Mapping[int, int]) -> Tensor:
    """Look-alike classes turn into each other; all other classes stay clean.

    The whole data set's noise is ``rate`` times the share of the classes that flip.

    Args:
        num_classes: C, at least 2.
        rate: probability that a sample of a flipping class flips, 0 ≤ rate < 1.
        flips: class → the class it turns into; keys and values may be digits in a string.

    Returns:
        ``(C, C)`` float64, rows sum to one.

    Raises:
        ValueError: the rate is out of range, the map is empty, a class flips to itself, or there
            are fewer classes than the map needs.
    """
    _check(num_classes, rate)
    pairs = {int(source): int(target) for source, target in flips.items()}
    if not pairs:
        raise ValueError(
            "Asymmetric noise needs a map from class to look-alike class, and this data set has "
            "none: fill in its flips, or use symmetric noise."
        )
    used = {*pairs, *pairs.values()}
    if max(used) >= num_classes or min(used) < 0:
        raise ValueError(
            f"The data set has fewer classes than the noise map needs: {num_classes} classes are "
            f"numbered 0 to {num_classes - 1}, the map names "
            f"{sorted(c for c in used if not 0 <= c < num_classes)}."
        )
    matrix = torch.eye(num_classes, dtype=torch.float64)
    for source, target in pairs.items():
        if source == target:
            raise ValueError(f"Class {source} flips to itself in the noise map; remove the entry.")
        matrix[source, source] = 1 - rate
        matrix[source, target] = rate
    return matrix


def _check(num_classes: int, rate: float) -> None:
    if num_classes < 2:
        raise ValueError(f"Label noise needs at least 2 classes, got {num_classes}.")
    if not 0 <= rate < 1:
        raise ValueError(f"The noise rate must be at least 0 and below 1, got {rate}.")


class ClassConditionalNoise:
    """Noise drawn from a transition matrix.

    Not a dataclass: Hydra turns dataclass instances that are passed to ``instantiate`` into
    configuration nodes.

    Args:
        transition: ``(C, C)``, ``T[i, j]`` = P(observed = j | clean = i), rows sum to one.
        exact: flip exact counts, ``n_i · T[i, j]`` of the ``n_i`` samples of class i to within one,
            as *Meta Soft Label Generation* (Algan & Ulusoy, ICPR 2020) does but by largest
            remainders: rounding every cell down leaves 100 classes clean at small rates. Otherwise
            every label is drawn independently.

    Raises:
        ValueError: the matrix is not square, has entries outside 0…1, or rows that do not sum to 1.
    """

    def __init__(self, transition: Tensor, exact: bool = True) -> None:
        matrix = transition.double()
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
            raise ValueError(f"A transition matrix must be square, got {tuple(matrix.shape)}.")
        if not bool(((matrix >= 0) & (matrix <= 1)).all()):
            raise ValueError("Transition probabilities must lie between 0 and 1.")
        row_error = (matrix.sum(dim=1) - 1).abs()
        if float(row_error.max()) > 1e-6:
            row = int(row_error.argmax())
            hint = ""
            if float((matrix.sum(dim=0) - 1).abs().max()) <= 1e-6:
                hint = " Its columns do: transpose it, rows are clean classes."
            raise ValueError(
                "Each row of a transition matrix must sum to 1, "
                f"row {row} sums to {float(matrix[row].sum()):.6g}.{hint}"
            )
        self.transition = matrix
        self.exact = exact

    def __call__(
        self, labels: Tensor, images: Images | None = None, *, generator: torch.Generator
    ) -> Tensor:
        """Draw observed labels.

        Args:
            labels: ``(N,)`` int64 clean labels in 0…C-1; not changed.
            images: not looked at.
            generator: CPU generator, the only source of randomness.

        Returns:
            ``(N,)`` int64.

        Raises:
            ValueError: a label lies outside 0…C-1.
        """
        num_classes = len(self.transition)
        if len(labels) and (int(labels.min()) < 0 or int(labels.max()) >= num_classes):
            raise ValueError(
                f"The noise model knows classes 0 to {num_classes - 1}, the labels run from "
                f"{int(labels.min())} to {int(labels.max())}."
            )
        if self.exact:
            return self._exact(labels, generator)
        rows = self.transition[labels]
        return torch.multinomial(rows, 1, generator=generator).squeeze(1)

    def _exact(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        observed = labels.clone()
        classes = torch.arange(len(self.transition))
        for clean, row in enumerate(self.transition):
            members = (labels == clean).nonzero().squeeze(1)
            quotas = row / row.sum() * len(members)
            counts = largest_remainder(quotas, generator=generator)
            shuffled = members[torch.randperm(len(members), generator=generator)]
            observed[shuffled] = classes.repeat_interleave(counts)
        return observed
