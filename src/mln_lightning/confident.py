"""Which samples to trust where none is known to be clean."""

from __future__ import annotations

import torch
from torch import Tensor


def most_confident(losses: Tensor, labels: Tensor, number: int) -> Tensor:
    """The samples of lowest loss, equally many of each class as far as the classes reach.

    One of each class in turn is taken, the one of lowest loss; a class that has no more is passed
    over, and of the last round those of lowest loss are taken.

    Args:
        losses: ``(n,)`` of the samples.
        labels: ``(n,)`` int64 their classes, 0 or more.
        number: at least 1 and at most n.

    Returns:
        ``(number,)`` int64 positions, ascending.

    Raises:
        ValueError: there are not so many samples.
    """
    if not 1 <= number <= len(labels):
        raise ValueError(f"Of {len(labels)} samples, 1 or more can be chosen, got {number}.")
    losses, labels = losses.cpu(), labels.cpu()
    by_loss = losses.argsort(stable=True)
    by_class = by_loss[labels[by_loss].argsort(stable=True)]  # and by loss within a class
    sizes = labels.bincount()
    starts = (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    rounds = torch.empty_like(labels)
    rounds[by_class] = torch.arange(len(labels)) - starts
    in_turn = by_loss[rounds[by_loss].argsort(stable=True)]
    return in_turn[:number].sort().values
