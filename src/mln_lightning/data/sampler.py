"""Batch order as a function of (seed, step), so that a stopped run resumes where it was.

A `DataLoader` iterates a sampler once an epoch. Both samplers ask for the number of finished steps
at that moment and yield what is left of the epoch; they keep no state of their own. Use them with
``batch_size=None``: each item is one whole batch of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.utils.data import Sampler

from mln_lightning.seeding import generator

_TRAIN_ORDER, _META_ORDER = 1, 2  # separate streams of one seed


class TrainSampler(Sampler[Tensor]):
    """A new order of the training rows in every epoch, a function of (seed, epoch).

    Args:
        rows: ``(n,)`` int64 rows to draw from.
        batch_size: B, 1…n.
        seed: seed of the order.
        step: tells how many training steps are finished.
        drop_last: leave out an epoch's last batch if it is short.

    Raises:
        ValueError: the batch size is out of range.
    """

    def __init__(
        self,
        rows: Tensor,
        *,
        batch_size: int,
        seed: int,
        step: Callable[[], int],
        drop_last: bool = True,
    ) -> None:
        if not 1 <= batch_size <= len(rows):
            raise ValueError(
                f"The batch size must be between 1 and the {len(rows)} training samples, "
                f"got {batch_size}."
            )
        self.rows = rows
        self.batch_size = batch_size
        self.seed = seed
        self.step = step
        self.drop_last = drop_last

    def __len__(self) -> int:
        """Steps of a whole epoch, also when only a part of one is left."""
        whole, rest = divmod(len(self.rows), self.batch_size)
        return whole + (0 if self.drop_last or not rest else 1)

    def __iter__(self) -> Iterator[Tensor]:
        epoch, start = divmod(self.step(), len(self))
        order = torch.randperm(len(self.rows), generator=generator(self.seed, _TRAIN_ORDER, epoch))
        batches = torch.split(self.rows[order], self.batch_size)[: len(self)]
        return iter(batches[start:])


class MetaSampler(Sampler[Tensor]):
    """An endless stream of shuffled passes over the meta set, cut into one batch per step.

    Batch s holds the positions s·b … s·b + b - 1 of the stream, whatever the epoch: every meta
    sample is used equally often, to within one. Batches may span two passes.

    Args:
        rows: ``(m,)`` int64 rows to draw from, at least one.
        batch_size: b, at least 1.
        steps_per_epoch: length of the training sampler beside it.
        seed: seed of the stream.
        step: tells how many training steps are finished.

    Raises:
        ValueError: there are no rows, or a size is below 1.
    """

    def __init__(
        self,
        rows: Tensor,
        *,
        batch_size: int,
        steps_per_epoch: int,
        seed: int,
        step: Callable[[], int],
    ) -> None:
        if not len(rows) or batch_size < 1 or steps_per_epoch < 1:
            raise ValueError(
                "A meta sampler needs samples, a batch size and steps, got "
                f"{len(rows)}, {batch_size} and {steps_per_epoch}."
            )
        self.rows = rows
        self.batch_size = batch_size
        self.steps_per_epoch = steps_per_epoch
        self.seed = seed
        self.step = step

    def __len__(self) -> int:
        """Steps of a whole epoch, also when only a part of one is left."""
        return self.steps_per_epoch

    def __iter__(self) -> Iterator[Tensor]:
        first = self.step()
        last = first - first % self.steps_per_epoch + self.steps_per_epoch
        return self._batches(first, last)

    def _batches(self, first: int, last: int) -> Iterator[Tensor]:
        size = len(self.rows)
        number, offset = divmod(first * self.batch_size, size)
        stream = self._pass(number)[offset:]
        for _ in range(first, last):
            while len(stream) < self.batch_size:
                number += 1
                stream = torch.cat([stream, self._pass(number)])
            yield stream[: self.batch_size]
            stream = stream[self.batch_size :]

    def _pass(self, number: int) -> Tensor:
        order = torch.randperm(len(self.rows), generator=generator(self.seed, _META_ORDER, number))
        return self.rows[order]
