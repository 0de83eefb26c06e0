"""Stratified, seeded index splits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mln_lightning.apportion import largest_remainder
from mln_lightning.sizes import SampleSize


def stratified_split(
    strata: Tensor, size: int, *, generator: torch.Generator, every_class: bool = False
) -> tuple[Tensor, Tensor]:
    """Draw ``size`` rows so that every class keeps its share, to within one row.

    Args:
        strata: ``(N,)`` int64 class of each row, 0, 1, …
        size: rows to draw, 0…N.
        generator: CPU generator, the only source of randomness.
        every_class: a class so rare that its share is none gets one row, at the expense of the
            largest; needs ``size`` of at least the number of classes that occur.

    Returns:
        ``(size,)`` drawn and ``(N - size,)`` other rows, both int64 and ascending.

    Raises:
        ValueError: the size is out of range.
    """
    total = len(strata)
    if not 0 <= size <= total:
        raise ValueError(f"Cannot draw {size} of {total} samples.")
    if not size:
        return _parted(torch.zeros(total, dtype=torch.bool))
    sizes = torch.bincount(strata)
    counts = largest_remainder(sizes.double() * size / total, generator=generator)
    if every_class and size >= int((sizes > 0).sum()):
        for rare in ((counts == 0) & (sizes > 0)).nonzero().squeeze(1).tolist():
            counts[int(counts.argmax())] -= 1
            counts[rare] = 1
    return _parted(_drawn(strata, counts, generator))


def balanced_split(
    strata: Tensor, size: int, classes: Sequence[str], *, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw ``size`` rows of each class.

    Args:
        strata: ``(N,)`` int64 class of each row, 0…C-1.
        size: rows of each class.
        classes: C names.
        generator: CPU generator, the only source of randomness.

    Returns:
        ``(C · size,)`` drawn and the other rows, both int64 and ascending.

    Raises:
        ValueError: a class has fewer rows.
    """
    sizes = torch.bincount(strata, minlength=len(classes))
    if int(sizes.min()) < size:
        raise ValueError(
            f"There are {int(sizes.min())} samples of class {classes[int(sizes.argmin())]} to draw "
            f"from, not {size}: ask for fewer of each class, or verify more."
        )
    return _parted(_drawn(strata, torch.full_like(sizes, size), generator))


def split(
    strata: Tensor,
    size: SampleSize,
    classes: Sequence[str],
    *,
    generator: torch.Generator,
    every_class: bool = False,
) -> tuple[Tensor, Tensor]:
    """`stratified_split` or `balanced_split`, as the size says.

    Args:
        strata: ``(N,)`` int64 class of each row, 0…C-1.
        size: what to draw.
        classes: C names.
        generator: CPU generator, the only source of randomness.
        every_class: see `stratified_split`.

    Returns:
        drawn and other rows, both int64 and ascending.

    Raises:
        ValueError: there are too few rows.
    """
    if size.unit == "of each class":
        return balanced_split(strata, int(size.amount), classes, generator=generator)
    count = size.count(len(strata), len(classes))
    return stratified_split(strata, count, generator=generator, every_class=every_class)


def _drawn(strata: Tensor, counts: Tensor, generator: torch.Generator) -> Tensor:
    drawn = torch.zeros(len(strata), dtype=torch.bool)
    for stratum, count in enumerate(counts.tolist()):
        rows = (strata == stratum).nonzero().squeeze(1)
        drawn[rows[torch.randperm(len(rows), generator=generator)[:count]]] = True
    return drawn


def _parted(drawn: Tensor) -> tuple[Tensor, Tensor]:
    return drawn.nonzero().squeeze(1), (~drawn).nonzero().squeeze(1)
