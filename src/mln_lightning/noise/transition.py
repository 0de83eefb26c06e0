"""Noise that depends on the class alone, drawn from a transition matrix."""

from __future__ import annotations

import torch
from torch import Tensor

from mln_lightning.apportion import largest_remainder
from mln_lightning.noise.base import Images
from mln_lightning.noise.checks import check_classes


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
        check_classes(labels, len(self.transition))
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
