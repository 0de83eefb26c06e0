"""A set of samples as a learner sees it: whole batches by row."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Dataset

from mln_lightning.batch import UNKNOWN, Batch
from mln_lightning.data.source import LabeledImages
from mln_lightning.noise.base import noise_rate


class BatchSource(Dataset[Batch]):
    """Whole batches by row: ``source[rows]`` is a `Batch`.

    Args:
        images: N images.
        labels: ``(N,)`` int64 labels a learner may see.
        clean: ``(N,)`` int64 true classes or ``UNKNOWN``.
    """

    def __init__(self, images: LabeledImages, labels: Tensor, clean: Tensor) -> None:
        self.images = images
        self.labels = labels
        self.clean = clean

    def __getitem__(self, rows: Tensor | Sequence[int]) -> Batch:
        rows = torch.as_tensor(rows)
        return Batch(self.images.fetch(rows), self.labels[rows], self.clean[rows], rows)


@dataclass(frozen=True, eq=False)
class Part:
    """A set and the rows that belong to it.

    Attributes:
        source: images, with the labels this set uses.
        index: ``(n,)`` int64 rows of ``source``, ascending.
    """

    source: BatchSource
    index: Tensor

    def __len__(self) -> int:
        return len(self.index)

    @property
    def labels(self) -> Tensor:
        """``(n,)`` int64 labels of the rows."""
        return self.source.labels[self.index]

    @property
    def clean(self) -> Tensor:
        """``(n,)`` int64 true classes of the rows, or ``UNKNOWN``; for metrics only."""
        return self.source.clean[self.index]

    @property
    def noise_rate(self) -> float | None:
        """Measured fraction of wrong labels; None if no labelled sample's class is known."""
        labels, clean = self.labels, self.clean
        known = (labels != UNKNOWN) & (clean != UNKNOWN)
        return noise_rate(labels, clean) if bool(known.any()) else None


def whole(images: LabeledImages) -> Part:
    """All of a clean part of a data set."""
    clean = images.labels if images.clean is None else images.clean
    return Part(BatchSource(images, images.labels, clean), torch.arange(len(images)))


@dataclass(frozen=True, eq=False)
class Partition:
    """Who sees which sample with which label.

    Attributes:
        train: observed labels, ``UNKNOWN`` where there is none; its source holds the full training
            set, N samples.
        val: observed labels.
        meta: trusted labels, equal to the clean ones.
        test: clean labels; None if there is no test set.
    """

    train: Part
    val: Part
    meta: Part
    test: Part | None

    def named(self) -> dict[str, Part]:
        """The sets there are, in the order train, val, meta, test."""
        parts = {"train": self.train, "val": self.val, "meta": self.meta}
        return parts if self.test is None else {**parts, "test": self.test}

    def state(self, name: str) -> dict[str, str]:
        """What a checkpoint remembers: the data set's name, and a checksum of who sees what."""
        digest = hashlib.sha256()
        indices = (part.index for part in (self.train, self.val, self.meta))
        for values in (self.train.source.labels, *indices):
            digest.update(values.numpy().astype("<i8").tobytes())
        return {"name": name, "labels_sha256": digest.hexdigest()}

    def check_state(self, saved: Mapping[str, str], name: str) -> None:
        """Refuse what `state` said of other data.

        Raises:
            ValueError: it was another data set, noise or split.
        """
        if saved["name"] != name:
            raise ValueError(
                f"The checkpoint was trained on {saved['name']}, the data set is {name}: choose "
                "the matching data set or start anew."
            )
        if saved != self.state(name):
            raise ValueError(
                f"The checkpoint was trained on {name} with other labels or another split: use "
                "the same noise, rate, data_seed, num_meta and num_val, or start anew."
            )
