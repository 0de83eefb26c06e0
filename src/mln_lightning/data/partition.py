"""From the parts of a data set to training, validation, meta and test sets with observed labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Dataset

from mln_lightning.batch import UNKNOWN, Batch
from mln_lightning.data.source import DatasetInfo, LabeledImages, Splits
from mln_lightning.data.split import stratified_split
from mln_lightning.noise.base import NoiseModel
from mln_lightning.seeding import generator

_NOISE, _META_SPLIT, _VAL_SPLIT = 1, 2, 3  # separate streams of the data seed


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
class Partition:
    """Who sees which sample with which label.

    Attributes:
        train: the full training set with observed labels, N samples.
        train_index: ``(n,)`` rows of ``train`` to learn from, ascending.
        val: validation set with observed labels.
        val_index: its rows.
        meta: trusted set, labels equal to the clean ones.
        meta_index: its rows.
        test: test set.
    """

    train: BatchSource
    train_index: Tensor
    val: BatchSource
    val_index: Tensor
    meta: BatchSource
    meta_index: Tensor
    test: BatchSource


def partition(
    splits: Splits,
    info: DatasetInfo,
    noise: NoiseModel | None,
    *,
    num_meta: int | None,
    num_val: int | None,
    data_seed: int,
) -> Partition:
    """Put noise on the whole training set once, then cut the meta and the validation set from it.

    The meta set is stratified by its trusted classes and does not depend on the noise; the
    validation set is stratified by observed labels. A set that the source brings itself is used
    instead, and cut to the size asked for.

    Args:
        splits: parts of the data set.
        info: their description.
        noise: acts on the clean training labels; None = the labels are observed ones already.
        num_meta: trusted samples; None = all of the source's own meta set.
        num_val: validation samples; None = all of the source's own validation set, or none.
        data_seed: seed of noise and splits.

    Raises:
        ValueError: the parts do not fit the description, or a size cannot be had.
    """
    for name, part in splits._asdict().items():
        if part is not None:
            _check_part(name, part, info)
    given = splits.train.labels
    if noise is None:
        labels = given
        known = splits.train.clean is not None
        clean = (
            torch.full_like(given, UNKNOWN) if splits.train.clean is None else splits.train.clean
        )
    else:
        known = True
        clean = given if splits.train.clean is None else splits.train.clean
        labels = noise(clean, splits.train, generator=generator(data_seed, _NOISE))
    train = BatchSource(splits.train, labels, clean)

    if num_meta is not None and num_meta < info.num_classes:
        raise ValueError(
            f"The meta set needs at least one sample of each of the {info.num_classes} classes, "
            f"num_meta is {num_meta}."
        )
    _check_pool(splits, num_meta, num_val)
    pool = torch.arange(len(splits.train))
    if splits.meta is not None:
        meta = BatchSource(splits.meta, splits.meta.labels, splits.meta.labels)
        meta_index = _take(splits.meta.labels, num_meta, generator(data_seed, _META_SPLIT))
    elif num_meta is None:
        raise ValueError("The source brings no meta set: say with num_meta how many to cut.")
    elif not known or bool((clean == UNKNOWN).any()):
        raise ValueError(
            "The clean labels of the training images are not known, so no meta set can be cut from "
            "them: give Splits a meta set of its own, or the training images their clean labels."
        )
    else:
        meta = BatchSource(splits.train, clean, clean)
        meta_index, pool = stratified_split(
            clean, num_meta, generator=generator(data_seed, _META_SPLIT)
        )
    if splits.val is not None:
        val = BatchSource(splits.val, splits.val.labels, _clean_or_unknown(splits.val))
        val_index = _take(splits.val.labels, num_val, generator(data_seed, _VAL_SPLIT))
    else:
        val = train
        drawn, rest = stratified_split(
            labels[pool], num_val or 0, generator=generator(data_seed, _VAL_SPLIT)
        )
        val_index, pool = pool[drawn], pool[rest]
    test_clean = splits.test.labels if splits.test.clean is None else splits.test.clean
    test = BatchSource(splits.test, splits.test.labels, test_clean)
    return Partition(train, pool, val, val_index, meta, meta_index, test)


def _take(strata: Tensor, size: int | None, draws: torch.Generator) -> Tensor:
    if size is None:
        return torch.arange(len(strata))
    return stratified_split(strata, size, generator=draws)[0]


def _clean_or_unknown(part: LabeledImages) -> Tensor:
    return torch.full_like(part.labels, UNKNOWN) if part.clean is None else part.clean


def _check_pool(splits: Splits, num_meta: int | None, num_val: int | None) -> None:
    """Every part must be large enough, and something must be left to train on."""
    wanted = 0
    for name, asked, own in (("meta", num_meta, splits.meta), ("val", num_val, splits.val)):
        if asked is not None and asked < 0:
            raise ValueError(f"num_{name} must not be negative, got {asked}.")
        if own is None:
            wanted += asked or 0
        elif asked is not None and asked > len(own):
            raise ValueError(
                f"num_{name} asks for {asked} samples, the source's own {name} set has {len(own)}."
            )
    if wanted >= len(splits.train):
        raise ValueError(
            f"Meta and validation set together ask for {wanted} of {len(splits.train)} training "
            "samples and leave none to train on: lower num_meta or num_val."
        )


def _check_part(name: str, part: LabeledImages, info: DatasetInfo) -> None:
    if not len(part):
        raise ValueError(f"The {name} part of {info.name} is empty.")
    shape = tuple(part.fetch(torch.tensor([0])).shape[1:])
    if shape != info.shape:
        raise ValueError(
            f"The images of the {name} part of {info.name} have the shape {shape}, "
            f"described is {info.shape}."
        )
    for kind, labels in (("labels", part.labels), ("clean labels", part.clean)):
        if labels is None:
            continue
        low, high = int(labels.min()), int(labels.max())
        # A true class may be unknown; a label that is to be learned may not.
        if high >= info.num_classes or low < (UNKNOWN if kind == "clean labels" else 0):
            raise ValueError(
                f"The {kind} of the {name} part of {info.name} must be classes 0 to "
                f"{info.num_classes - 1}, they run from {low} to {high}."
            )
    if name == "train" and len(part) != info.num_train:
        raise ValueError(
            f"{info.name} should have {info.num_train} training images, found {len(part)}."
        )
