"""Batch order as a function of (seed, step), so that a stopped run resumes where it was.

A `DataLoader` iterates a sampler once an epoch. Both samplers ask for the number of finished steps
at that moment and yield what is left of the epoch; they keep no state of their own. Use them with
``batch_size=None``: each item is one whole batch of rows.

With several processes the batch sizes stay those of the whole step. Each process takes its share of
every batch, so the shares in the order of their ranks are the batch that one process would see.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

import torch
from torch import Tensor
from torch.utils.data import Sampler

from mln_lightning.batch import UNKNOWN
from mln_lightning.data.parts import Partition
from mln_lightning.seeding import generator

# Separate streams of one seed; 3 is the augmentation's.
_TRAIN_ORDER, _META_ORDER, _UNLABELLED_ORDER = 1, 2, 4


class TrainSampler(Sampler[Tensor]):
    """A new order of the training rows in every epoch, a function of (seed, epoch).

    Unlabelled rows are drawn among the labelled ones (``mixed``), or after all of them
    (``sequential``): first the labelled batches, then the unlabelled ones, and no batch with both.
    Epochs are equally long either way.

    Shares of a batch differ by one sample at most. In a short last batch a process may have none.

    Args:
        rows: ``(n,)`` int64 rows to draw from.
        batch_size: B, samples of a step over all processes; at least one for each process, and no
            more than there are rows of each kind that has its own batches.
        seed: seed of the order.
        step: tells how many training steps are finished.
        drop_last: leave out the last batch if it is short; in the sequential order of both kinds.
        unlabelled: ``(u,)`` int64 rows without a label; None or empty = none.
        unlabelled_order: where the unlabelled rows come.
        rank: this process, 0…num_processes - 1.
        num_processes: processes that share each batch.

    Raises:
        ValueError: a size, the rank or the order is out of range.
    """

    def __init__(
        self,
        rows: Tensor,
        *,
        batch_size: int,
        seed: int,
        step: Callable[[], int],
        drop_last: bool = True,
        unlabelled: Tensor | None = None,
        unlabelled_order: Literal["mixed", "sequential"] = "mixed",
        rank: int = 0,
        num_processes: int = 1,
    ) -> None:
        if unlabelled_order not in ("mixed", "sequential"):
            raise ValueError(
                f"unlabelled_order is 'mixed' or 'sequential', got {unlabelled_order!r}."
            )
        if unlabelled is None or not len(unlabelled):
            parts = {"training": rows}
        elif unlabelled_order == "mixed":
            parts = {"training": torch.cat([rows, unlabelled])}
        else:
            parts = {"labelled training": rows, "unlabelled training": unlabelled}
        for kind, part in parts.items():
            if not 1 <= batch_size <= len(part):
                raise ValueError(
                    f"The batch size must be between 1 and the {len(part)} {kind} samples, "
                    f"got {batch_size}."
                )
        _check_processes("batch size", batch_size, rank, num_processes)
        self.parts = tuple(parts.values())
        self.batch_size = batch_size
        self.seed = seed
        self.step = step
        self.drop_last = drop_last
        self.rank = rank
        self.num_processes = num_processes

    def __len__(self) -> int:
        """Steps of a whole epoch, also when only a part of one is left."""
        return sum(self._steps(part) for part in self.parts)

    def __iter__(self) -> Iterator[Tensor]:
        epoch, start = divmod(self.step(), len(self))
        batches: list[Tensor] = []
        for part, stream in zip(self.parts, (_TRAIN_ORDER, _UNLABELLED_ORDER), strict=False):
            order = torch.randperm(len(part), generator=generator(self.seed, stream, epoch))
            batches += torch.split(part[order], self.batch_size)[: self._steps(part)]
        return (_share(batch, self.rank, self.num_processes) for batch in batches[start:])

    def _steps(self, part: Tensor) -> int:
        whole, rest = divmod(len(part), self.batch_size)
        return whole + (0 if self.drop_last or not rest else 1)


class MetaSampler(Sampler[Tensor]):
    """An endless stream of shuffled passes over the meta set, cut into one batch per step.

    Batch s holds the positions s·b … s·b + b - 1 of the stream, whatever the epoch: every meta
    sample is used equally often, to within one. Batches may span two passes.

    Args:
        rows: ``(m,)`` int64 rows to draw from, at least one.
        batch_size: b, samples of a step over all processes; at least one for each process.
        steps_per_epoch: length of the training sampler beside it.
        seed: seed of the stream.
        step: tells how many training steps are finished.
        rank: this process, 0…num_processes - 1.
        num_processes: processes that share each batch.

    Raises:
        ValueError: there are no rows, or a size or the rank is out of range.
    """

    def __init__(
        self,
        rows: Tensor,
        *,
        batch_size: int,
        steps_per_epoch: int,
        seed: int,
        step: Callable[[], int],
        rank: int = 0,
        num_processes: int = 1,
    ) -> None:
        if not len(rows) or batch_size < 1 or steps_per_epoch < 1:
            raise ValueError(
                "A meta sampler needs samples, a batch size and steps, got "
                f"{len(rows)}, {batch_size} and {steps_per_epoch}."
            )
        _check_processes("meta batch size", batch_size, rank, num_processes)
        self.rows = rows
        self.batch_size = batch_size
        self.steps_per_epoch = steps_per_epoch
        self.seed = seed
        self.step = step
        self.rank = rank
        self.num_processes = num_processes

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
            yield _share(stream[: self.batch_size], self.rank, self.num_processes)
            stream = stream[self.batch_size :]

    def _pass(self, number: int) -> Tensor:
        order = torch.randperm(len(self.rows), generator=generator(self.seed, _META_ORDER, number))
        return self.rows[order]


def _check_processes(name: str, batch_size: int, rank: int, num_processes: int) -> None:
    if not 0 <= rank < num_processes:
        raise ValueError(
            f"A rank is between 0 and the number of processes less one, got rank {rank} of "
            f"{num_processes} processes."
        )
    if batch_size < num_processes:
        raise ValueError(
            f"The {name} is that of all processes together and must be at least their number, got "
            f"{batch_size} for {num_processes} processes."
        )


def train_samplers(
    parts: Partition,
    *,
    batch_size: int,
    meta_batch_size: int | None,
    seed: int,
    step: Callable[[], int],
    drop_last: bool,
    unlabelled_order: Literal["mixed", "sequential"],
    share: tuple[int, int],
) -> tuple[TrainSampler, MetaSampler]:
    """The order of the training and of the meta samples, batch by batch.

    Args:
        parts: the sets.
        batch_size: B.
        meta_batch_size: b; None = B, but no more than there are meta samples.
        seed: seed of both orders.
        step: tells how many training steps are finished.
        drop_last: leave out an epoch's last batch if it is short.
        unlabelled_order: where samples without a label come.
        share: rank of this process, and how many share each batch.

    Raises:
        ValueError: a size is out of range.
    """
    rank, num_processes = share
    train, meta = parts.train, parts.meta
    unlabelled = train.labels == UNKNOWN
    order = TrainSampler(
        train.index[~unlabelled],
        batch_size=batch_size,
        seed=seed,
        step=step,
        drop_last=drop_last,
        unlabelled=train.index[unlabelled],
        unlabelled_order=unlabelled_order,
        rank=rank,
        num_processes=num_processes,
    )
    meta_order = MetaSampler(
        meta.index,
        batch_size=meta_batch_size or min(batch_size, len(meta)),
        steps_per_epoch=len(order),
        seed=seed,
        step=step,
        rank=rank,
        num_processes=num_processes,
    )
    return order, meta_order


def _share(batch: Tensor, rank: int, num_processes: int) -> Tensor:
    return torch.tensor_split(batch, num_processes)[rank]
