"""Noise that depends on the class alone, drawn from a transition matrix."""

from __future__ import annotations

import torch
from torch import Tensor

from mln_lightning.apportion import rounded_to
from mln_lightning.noise.base import Images
from mln_lightning.noise.checks import check_classes, check_transition


class ClassConditionalNoise:
    """Noise drawn from a transition matrix.

    Not a dataclass: Hydra turns dataclass instances that are passed to ``instantiate`` into
    configuration nodes.

    Args:
        transition: ``(C, C)``, ``T[i, j]`` = P(observed = j | clean = i), rows sum to one.
        exact: flip exact counts, ``n_i · T[i, j]`` of the ``n_i`` samples of class i to within one,
            and of all samples together to within one half. *Meta Soft Label Generation* (Algan &
            Ulusoy, ICPR 2020) rounds every cell down, which leaves 100 classes clean at small
            rates; here the flips are dealt by largest remainders, first to the classes, then to
            where each goes. Otherwise every label is drawn independently.

    Raises:
        ValueError: the matrix is not square, has entries outside 0…1, or rows that do not sum to 1.
    """

    def __init__(self, transition: Tensor, exact: bool = True) -> None:
        self.transition = check_transition(transition)
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
        num_classes = len(self.transition)
        sizes = torch.bincount(labels, minlength=num_classes)
        quotas = self.transition / self.transition.sum(dim=1, keepdim=True) * sizes[:, None]
        quotas.fill_diagonal_(0)  # of the flips alone
        lots, shuffled = [], []
        for clean in range(num_classes):
            lots.append(torch.randperm(num_classes, generator=generator))
            members = (labels == clean).nonzero().squeeze(1)
            shuffled.append(members[torch.randperm(len(members), generator=generator)])
        expected = quotas.sum(dim=1)
        # Class by class, a tenth of a flip in each of 100 classes would be none at all.
        flips = rounded_to(
            round(float(expected.sum())), expected, torch.randperm(num_classes, generator=generator)
        )
        observed = labels.clone()
        classes = torch.arange(num_classes)
        for clean, number in enumerate(flips.tolist()):
            counts = rounded_to(number, quotas[clean], lots[clean])
            counts[clean] = len(shuffled[clean]) - number
            observed[shuffled[clean]] = classes.repeat_interleave(counts)
        return observed
