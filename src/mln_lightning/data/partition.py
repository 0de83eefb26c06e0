"""From the parts of a data set to training, validation, meta and test sets with observed labels."""

from __future__ import annotations

import torch
from torch import Tensor

from mln_lightning.batch import UNKNOWN
from mln_lightning.data.cut import Cut
from mln_lightning.data.fitting import check_meta_classes, check_part, check_sizes, trusted_mask
from mln_lightning.data.parts import BatchSource, Part, Partition
from mln_lightning.data.rows import read_rows
from mln_lightning.data.source import DatasetInfo, LabeledImages, Splits
from mln_lightning.data.split import split, stratified_split
from mln_lightning.noise.base import NoiseModel
from mln_lightning.seeding import generator
from mln_lightning.sizes import SampleSize

# Separate streams of the data seed.
_NOISE, _META_SPLIT, _VAL_SPLIT, _TEST_SPLIT, _HIDDEN, _RESERVE, _TRAIN = 1, 2, 3, 4, 5, 6, 7


def partition(
    splits: Splits, info: DatasetInfo, noise: NoiseModel | None, cut: Cut, *, data_seed: int
) -> Partition:
    """Put noise on the whole training set once, then cut the other sets from it.

    The meta set (and the test set, where the source has none) is stratified by trusted classes and
    does not depend on the noise; the validation set is stratified by observed labels. A set that
    the source brings itself is used instead, and cut to the size asked for.

    Args:
        splits: parts of the data set.
        info: their description.
        noise: acts on the clean training labels (where one is unknown the label is taken for it);
            None = the labels are observed ones already.
        cut: sizes.
        data_seed: seed of noise and splits.

    Raises:
        ValueError: the parts do not fit the description, or a size cannot be had.
        FileNotFoundError: the list of meta samples is missing.
    """
    for name, part in splits.parts().items():
        check_part(name, part, info)
    observed, clean = _labels(splits.train, noise, generator(data_seed, _NOISE))
    train = BatchSource(splits.train, observed, clean)
    check_sizes(splits, info, cut, trusted=int(trusted_mask(splits.train, clean).sum()))

    listed = None if cut.meta_list is None else read_rows(cut.meta_list, train)
    pool = torch.ones(len(observed), dtype=torch.bool)
    test = _test(splits, clean, info, cut, listed, pool, data_seed)
    meta, test = _meta(splits, train, test, info, cut, listed, pool, data_seed)
    val = _val(splits, train, info, cut, pool, data_seed)
    if cut.num_train is not None:
        rows = (pool & (observed != UNKNOWN)).nonzero().squeeze(1)
        _, left = _split_of(observed[rows], cut.num_train, info, generator(data_seed, _TRAIN))
        pool[rows[left]] = False
    if cut.num_unlabelled is not None:
        labelled = (pool & (observed != UNKNOWN)).nonzero().squeeze(1)
        hidden, _ = _split_of(
            observed[labelled], cut.num_unlabelled, info, generator(data_seed, _HIDDEN)
        )
        train.labels = observed.index_fill(0, labelled[hidden], UNKNOWN)
    return Partition(Part(train, pool.nonzero().squeeze(1)), val, meta, test)


def _labels(
    part: LabeledImages, noise: NoiseModel | None, draws: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Observed labels and what is known of the truth."""
    given, clean = part.labels, part.clean
    if noise is None:
        return given, torch.full_like(given, UNKNOWN) if clean is None else clean
    clean = given if clean is None else torch.where(clean == UNKNOWN, given, clean)
    if bool((clean == UNKNOWN).any()):
        raise ValueError(
            f"Noise cannot be put on images without a label, and {int((clean == UNKNOWN).sum())} "
            "have none: use noise=none, or leave them out."
        )
    return noise(clean, part, generator=draws), clean


def _test(
    splits: Splits,
    clean: Tensor,
    info: DatasetInfo,
    cut: Cut,
    listed: Tensor | None,
    pool: Tensor,
    data_seed: int,
) -> Part | None:
    """The source's own test set, or one cut from the trusted training samples or its meta set."""
    if splits.test is not None:
        own = splits.test
        truth = own.labels if own.clean is None else own.clean
        return Part(BatchSource(own, own.labels, truth), torch.arange(len(own)))
    if cut.num_test is None:
        return None
    source = BatchSource(splits.train, clean, clean)
    rows = trusted_mask(splits.train, clean).nonzero().squeeze(1)
    if listed is not None:
        rows = rows[~torch.isin(rows, listed)]
    from_meta = splits.meta is not None and not len(rows)
    if splits.meta is not None and from_meta:  # nobody else is trusted
        source = BatchSource(splits.meta, splits.meta.labels, splits.meta.labels)
        rows = torch.arange(len(splits.meta))
    size = cut.num_test
    if listed is None and (
        splits.meta is None or from_meta
    ):  # every class keeps a sample for the meta set
        strata = source.labels[rows]
        present, total = int((torch.bincount(strata) > 0).sum()), len(rows)
        draws = generator(data_seed, _RESERVE)
        _, free = stratified_split(strata, present, generator=draws, every_class=True)
        rows = rows[free]
        if size.unit != "of each class":
            size = SampleSize(min(size.count(total, info.num_classes), len(rows)), "images")
    drawn, _ = _split_of(source.labels[rows], size, info, generator(data_seed, _TEST_SPLIT))
    if not len(drawn):
        return None
    if not from_meta:
        pool[rows[drawn]] = False
    return Part(source, rows[drawn])


def _meta(
    splits: Splits,
    train: BatchSource,
    test: Part | None,
    info: DatasetInfo,
    cut: Cut,
    listed: Tensor | None,
    pool: Tensor,
    data_seed: int,
) -> tuple[Part, Part | None]:
    """The meta set, and what it leaves of the test set."""
    draws = generator(data_seed, _META_SPLIT)
    if cut.meta_from == "test":
        if test is None:
            raise ValueError("meta_from=test needs a test set, and the data set has none.")
        source, rows = test.source, test.index
    elif listed is not None:
        trust = torch.where(train.clean == UNKNOWN, train.labels, train.clean)
        source, rows = BatchSource(splits.train, trust, trust), listed
    elif splits.meta is not None:
        own = splits.meta
        source, rows = BatchSource(own, own.labels, own.labels), torch.arange(len(own))
        if test is not None and test.source.images is own:
            rows = rows[~torch.isin(rows, test.index)]
    else:
        source = BatchSource(splits.train, train.clean, train.clean)
        rows = (trusted_mask(splits.train, train.clean) & pool).nonzero().squeeze(1)
    index, rest = rows, rows[:0]
    if cut.num_meta is not None and listed is None:
        drawn, left = _split_of(source.labels[rows], cut.num_meta, info, draws, every_class=True)
        index, rest = rows[drawn], rows[left]
    check_meta_classes(source.labels[index], info)
    if cut.meta_from == "test" and test is not None:
        return Part(source, index), Part(test.source, rest)
    if (listed is not None or splits.meta is None) and not cut.meta_in_train:
        pool[index] = False
    return Part(source, index), test


def _val(
    splits: Splits, train: BatchSource, info: DatasetInfo, cut: Cut, pool: Tensor, data_seed: int
) -> Part:
    """The validation set, with observed labels."""
    draws = generator(data_seed, _VAL_SPLIT)
    if splits.val is not None:
        own = splits.val
        truth = torch.full_like(own.labels, UNKNOWN) if own.clean is None else own.clean
        rows = torch.arange(len(own))
        # A share is one of the training samples and says nothing about a set of its own.
        if cut.num_val is not None and cut.num_val.unit != "share":
            rows, _ = _split_of(own.labels, cut.num_val, info, draws)
        return Part(BatchSource(own, own.labels, truth), rows)
    rows = (pool & (train.labels != UNKNOWN)).nonzero().squeeze(1)
    if cut.num_val is None:
        return Part(train, rows[:0])
    drawn, _ = _split_of(train.labels[rows], cut.num_val, info, draws)
    pool[rows[drawn]] = False
    return Part(train, rows[drawn])


def _split_of(
    strata: Tensor,
    size: SampleSize,
    info: DatasetInfo,
    draws: torch.Generator,
    *,
    every_class: bool = False,
) -> tuple[Tensor, Tensor]:
    return split(strata, size, info.class_names, generator=draws, every_class=every_class)
