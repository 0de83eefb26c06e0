"""Exact copies of an image within the parts of a data set and across them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple

import torch
from torch import Tensor

from mln_lightning.batch import UNKNOWN
from mln_lightning.data.encoded import Sized
from mln_lightning.data.source import LabeledImages


class Place(NamedTuple):
    """Where an image occurs.

    Attributes:
        part: name of the part.
        row: its row in the images of that part.
        name: what a message calls it.
    """

    part: str
    row: int
    name: str


@dataclass(frozen=True, eq=False)
class Duplicates:
    """All images that occur more than once.

    Attributes:
        parts: names of the parts, from the one that gives copies up to the one that keeps them.
        groups: the places of each such image, two or more, by part and row.
        conflicts: how many of the groups have more than one label.
    """

    parts: tuple[str, ...]
    groups: tuple[tuple[Place, ...], ...]
    conflicts: int

    def copies(self, part: str) -> Tensor:
        """``(n,)`` int64 rows of ``part``, ascending, whose image is also in a later part.

        Once they are left out, the later parts share no image with this one.
        """
        rank = self.parts.index(part)
        later = self.parts[rank + 1 :]
        rows = [
            place.row
            for group in self.groups
            if group[-1].part in later
            for place in group
            if place.part == part
        ]
        return torch.tensor(sorted(rows), dtype=torch.int64)

    def across(self) -> dict[tuple[str, str], int]:
        """(earlier part, later part) → images of the earlier one that the later one has too."""
        counts: Counter[tuple[str, str]] = Counter()
        for group in self.groups:
            found = [place.part for place in group]
            for place in group:
                rank = self.parts.index(place.part)
                counts.update(
                    (place.part, name) for name in self.parts[rank + 1 :] if name in found
                )
        return dict(counts)

    def within(self) -> dict[str, int]:
        """Part → its images that repeat one before them in the same part."""
        counts: Counter[str] = Counter()
        for group in self.groups:
            for part, number in Counter(place.part for place in group).items():
                counts[part] += number - 1
        return {part: number for part, number in counts.items() if number}


def find_duplicates(parts: Mapping[str, tuple[LabeledImages, Tensor]]) -> Duplicates:
    """Compare all images by their content: the bytes of a file, or the pixels of an array.

    Images that look alike but were saved differently are not found. Images that have a ``size`` are
    read only where another image has the same size.

    Args:
        parts: name → images and the ``(n,)`` int64 rows to compare; the order says who keeps a
            shared image, so give training, validation, meta and test set in this order. A row that
            two parts have in common is one image and belongs to the later part.

    Raises:
        OSError: an image's file cannot be read.
    """
    names = tuple(parts)
    groups = []
    conflicts = 0
    for members in sorted(_equal(list(parts.values()))):
        # One row in two parts is no copy; the later part has it.
        own = {(id(parts[names[part]][0]), row): part for part, row in members}
        if len(own) < 2:
            continue
        found = sorted((part, row) for (_, row), part in own.items())
        labels = {int(parts[names[part]][0].labels[row]) for part, row in found} - {UNKNOWN}
        conflicts += len(labels) > 1
        groups.append(
            tuple(Place(names[part], row, parts[names[part]][0].name(row)) for part, row in found)
        )
    return Duplicates(names, tuple(groups), conflicts)


def _equal(parts: list[tuple[LabeledImages, Tensor]]) -> Iterator[list[tuple[int, int]]]:
    """(number of the part, row) of the images of equal content, wherever there are several."""
    sizes: Counter[int] = Counter()
    unread: list[tuple[int, int, int]] = []
    found: dict[bytes, list[tuple[int, int]]] = {}

    def read(part: int, row: int) -> bytes:
        content = parts[part][0].content(row)
        found.setdefault(blake2b(content, digest_size=16).digest(), []).append((part, row))
        return content

    for part, (images, rows) in enumerate(parts):
        for row in rows.tolist():
            size = images.size(row) if isinstance(images, Sized) else None
            if size is None:
                size = len(read(part, row))
            else:
                unread.append((size, part, row))
            sizes[size] += 1
    for size, part, row in unread:
        if sizes[size] > 1:
            read(part, row)
    return (sorted(members) for members in found.values() if len(members) > 1)
