"""What there is to know about a data set before anything is trained on it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from mln_lightning.batch import UNKNOWN
from mln_lightning.data.cut import Cut
from mln_lightning.data.duplicates import Duplicates, find_duplicates
from mln_lightning.data.fitting import trusted_mask
from mln_lightning.data.parts import Partition
from mln_lightning.data.scan import Scan
from mln_lightning.data.source import DatasetInfo, LabeledImages, Splits

FEWEST_TRUSTED = 6
"""Trusted images of each class of the smallest meta set that we have measured: 60 on the digits."""

_ORDER = ("train", "val", "meta", "test")  # who comes later keeps an image that both have


@dataclass(frozen=True, eq=False)
class PartFindings:
    """One part of a data set.

    Attributes:
        images: how many, unreadable ones included.
        counts: ``(C,)`` int64 images of each observed label.
        unlabelled: images without a label.
        sizes: width and height of the smallest, the median and the largest readable image by area;
            empty if there is none.
        modes: Pillow's name of the kind of pixels → readable images.
        unreadable: "name: reason" of each image that cannot be used.
    """

    images: int
    counts: Tensor
    unlabelled: int
    sizes: tuple[tuple[int, int], ...]
    modes: Mapping[str, int]
    unreadable: tuple[str, ...]


@dataclass(frozen=True)
class Agreement:
    """How observed labels and known true classes agree.

    Attributes:
        known: images that have both.
        wrong: those where they differ.
        low: lower end of the 95 % interval of the noise rate, a fraction; see `wilson`.
        high: its upper end.
        pairs: (true class, observed label, images), the most frequent confusions first.
    """

    known: int
    wrong: int
    low: float
    high: float
    pairs: tuple[tuple[int, int, int], ...]


class Wanted(NamedTuple):
    """How many trusted images of each class there should be.

    Attributes:
        meta: for the meta set.
        test: for a test set that is cut from them too.
    """

    meta: int
    test: int


@dataclass(frozen=True, eq=False)
class Findings:
    """All of a data set.

    Attributes:
        info: description of the data set.
        parts: in the order train, val, meta, test, further test sets.
        duplicates: exact copies among the readable images.
        agreement: of the training labels; None if no image has both.
        trusted: ``(C,)`` int64 images of each class that a meta set can be cut from.
        wanted: so many of each class there should be.
        sets: images of each set that a run makes of the data; empty if it cannot.
        notes: what the source itself says.
    """

    info: DatasetInfo
    parts: Mapping[str, PartFindings]
    duplicates: Duplicates
    agreement: Agreement | None
    trusted: Tensor
    wanted: Wanted
    sets: Mapping[str, int]
    notes: tuple[str, ...]

    @property
    def imbalance(self) -> float:
        """Images of the largest training class over those of the smallest; infinite if it is empty.

        Of a training set without a label it is 1.
        """
        low, high = int(self.parts["train"].counts.min()), int(self.parts["train"].counts.max())
        return high / low if low else math.inf if high else 1.0

    @property
    def missing_trusted(self) -> Tensor:
        """``(C,)`` int64 images of each class that are still to be verified."""
        return (self.wanted.meta + self.wanted.test - self.trusted).clamp(min=0)


def look(
    splits: Splits,
    scans: Mapping[str, Scan],
    info: DatasetInfo,
    cut: Cut,
    *,
    used: Splits,
    sets: Partition | None = None,
) -> Findings:
    """Count and compare everything that the parts of a data set show.

    Args:
        splits: parts of the data set.
        scans: part → what decoding its images told.
        info: description of the data set.
        cut: sizes asked for.
        used: the same parts, perhaps `without_unreadable` images, N of them for training.
        sets: what a run makes of them, with noise on their labels; None if it cannot.

    Raises:
        OSError: an image's file cannot be read any more.
    """
    parts = splits.parts()
    ordered = [name for name in _ORDER if name in parts]
    ordered += [name for name in parts if name not in _ORDER]
    readable = {name: (parts[name], readable_rows(scans[name])) for name in ordered}
    if sets is None:
        observed, clean = _given_labels(used.train)
    else:
        observed, clean = sets.train.source.labels, sets.train.source.clean
    trusted = _trusted(used, info, cut, clean)
    return Findings(
        info=info,
        parts={name: _part(parts[name], scans[name], info) for name in ordered},
        duplicates=find_duplicates(readable),
        agreement=agreement(observed, clean, info.num_classes),
        trusted=trusted,
        wanted=wanted_per_class(splits, cut, trusted),
        sets={} if sets is None else {name: len(part) for name, part in sets.named().items()},
        notes=splits.notes,
    )


def readable_rows(scan: Scan) -> Tensor:
    """``(n,)`` int64 rows of the images that could be decoded, ascending."""
    readable = torch.ones(len(scan.width), dtype=torch.bool)
    readable[list(scan.problems)] = False
    return readable.nonzero().squeeze(1)


def without_unreadable(splits: Splits, scans: Mapping[str, Scan]) -> Splits:
    """The parts without the images that could not be decoded."""

    def keep(name: str, part: LabeledImages) -> LabeledImages:
        return part.select(readable_rows(scans[name])) if scans[name].problems else part

    return splits.each(keep)


def agreement(observed: Tensor, clean: Tensor, num_classes: int) -> Agreement | None:
    """Compare labels with true classes where both are known.

    If the true classes of a random sample are known, its fraction of wrong labels estimates the
    noise rate of all.

    Args:
        observed: ``(N,)`` int64 labels or ``UNKNOWN``.
        clean: ``(N,)`` int64 true classes or ``UNKNOWN``.
        num_classes: C.
    """
    both = (observed != UNKNOWN) & (clean != UNKNOWN)
    observed, clean = observed[both], clean[both]
    if not len(clean):
        return None
    wrong = observed != clean
    low, high = wilson(int(wrong.sum()), len(clean))
    flips = Counter((clean * num_classes + observed)[wrong].tolist())
    ranked = sorted(flips.items(), key=lambda flip: (-flip[1], flip[0]))
    return Agreement(
        known=len(clean),
        wrong=int(wrong.sum()),
        low=low,
        high=high,
        pairs=tuple((*divmod(flip, num_classes), count) for flip, count in ranked),
    )


def wanted_per_class(splits: Splits, cut: Cut, trusted: Tensor) -> Wanted:
    """How many trusted images of each class the sizes asked for take.

    A meta set of n of each class takes n; one that is larger than what there is takes its share
    of each class; any other takes `FEWEST_TRUSTED`, the fewest with which we know the methods to
    work.

    Args:
        splits: parts of the data set.
        cut: sizes asked for.
        trusted: ``(C,)`` int64 trusted images of each class.
    """
    total, classes = int(trusted.sum()), len(trusted)
    size, test = cut.num_meta, cut.num_test
    meta = FEWEST_TRUSTED
    if size is not None and size.unit == "of each class":
        meta = int(size.amount)
    elif size is not None and (count := size.count(total, classes)) > total:
        meta = math.ceil(count / classes)
    if test is None or splits.test is not None or splits.meta is not None:
        return Wanted(meta, 0)
    if test.unit == "share":
        return Wanted(meta, math.ceil(round(meta * test.amount / (1 - test.amount), 9)))
    return Wanted(meta, math.ceil(test.count(total, classes) / classes))


def wilson(hits: int, trials: int, z: float = 1.959964) -> tuple[float, float]:
    """Score interval of a fraction (Wilson, JASA 1927), by default of 95 %.

    Args:
        hits: 0…``trials``.
        trials: at least 1.
        z: quantile of the normal distribution.
    """
    share, weight = hits / trials, z * z / trials
    centre = (share + weight / 2) / (1 + weight)
    half = math.sqrt(share * (1 - share) * weight + weight * weight / 4) / (1 + weight)
    return max(0.0, centre - half), min(1.0, centre + half)


def _given_labels(images: LabeledImages) -> tuple[Tensor, Tensor]:
    unknown = torch.full_like(images.labels, UNKNOWN)
    return images.labels, unknown if images.clean is None else images.clean


def _part(images: LabeledImages, scan: Scan, info: DatasetInfo) -> PartFindings:
    rows = readable_rows(scan)
    area = (scan.width * scan.height)[rows]
    ranked = rows[area.argsort(stable=True)]
    chosen = [ranked[0], ranked[(len(rows) - 1) // 2], ranked[-1]] if len(rows) else []
    labels = images.labels
    described = labels[(labels >= 0) & (labels < info.num_classes)]  # others are refused elsewhere
    return PartFindings(
        images=len(images),
        counts=described.bincount(minlength=info.num_classes),
        unlabelled=int((labels == UNKNOWN).sum()),
        sizes=tuple((int(scan.width[row]), int(scan.height[row])) for row in chosen),
        modes=scan.modes,
        unreadable=tuple(scan.problems[row] for row in sorted(scan.problems)),
    )


def _trusted(splits: Splits, info: DatasetInfo, cut: Cut, clean: Tensor) -> Tensor:
    """``(C,)`` images of each class that the meta set is cut from, before a test set is."""
    own = splits.test if cut.meta_from == "test" else splits.meta
    labels = own.labels if own is not None else clean[trusted_mask(splits.train, clean)]
    labels = labels[(labels >= 0) & (labels < info.num_classes)]
    return labels.bincount(minlength=info.num_classes)
