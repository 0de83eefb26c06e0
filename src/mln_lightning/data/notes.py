"""What a user should know about the data before training starts, a line each."""

from __future__ import annotations

from dataclasses import replace

import torch

from mln_lightning.batch import UNKNOWN
from mln_lightning.data.cut import Cut
from mln_lightning.data.duplicates import find_duplicates
from mln_lightning.data.parts import Part, Partition
from mln_lightning.data.source import Splits


def notes(splits: Splits, parts: Partition, cut: Cut, unreadable: list[str]) -> list[str]:
    """What is out of the ordinary about the sets.

    Args:
        splits: parts of the data set.
        parts: the sets made of them.
        cut: sizes asked for.
        unreadable: names and reasons of images that were left out.
    """
    lines = list(splits.notes)
    if unreadable:
        lines.append(f"unreadable images left out: {len(unreadable)}, see unreadable.txt")
    if cut.meta_from == "test":
        lines.append("meta set cut from the TEST set: the accuracy does not compare with others'")
    if parts.test is None:
        lines.append("no test set: the only accuracy is that on observed labels")
    elif splits.test is None:
        lines.append("the test set is cut from the trusted images")
    given, clean, trusted = splits.train.labels, splits.train.clean, splits.train.trusted
    if trusted is not None and clean is not None:
        checked = trusted & (given != UNKNOWN)
        wrong = int((checked & (given != clean)).sum())
        if wrong:
            lines.append(
                f"{wrong} of {int(checked.sum())} verified images carry another observed label"
            )
    return lines


def without_duplicates(parts: Partition, *, drop: bool) -> tuple[Partition, list[str]]:
    """Find exact copies across the sets, and leave them out of the earlier one if asked to.

    Args:
        parts: the sets; train comes before val, meta and test.
        drop: leave them out.

    Returns:
        the sets, and a line for each pair of them that shares images.

    Raises:
        ValueError: nothing would be left of a set.
    """
    sets = parts.named()
    found = find_duplicates({n: (part.source.images, part.index) for n, part in sets.items()})
    what = "left out of the first" if drop else "duplicates=drop leaves them out of the first"
    lines = [
        f"images of the {earlier} set that are in the {later} set too: {count}; {what}"
        for (earlier, later), count in found.across().items()
    ]
    if not drop or not lines:
        return parts, lines
    kept = {name: _without(part, found.copies(name)) for name, part in sets.items()}
    for name, part in kept.items():
        if len(sets[name]) and not len(part):
            raise ValueError(
                f"Every image of the {name} set is in a later set too, so duplicates=drop leaves "
                "none; mend the data, or use duplicates=report."
            )
    test = kept.get("test")
    return replace(parts, train=kept["train"], val=kept["val"], meta=kept["meta"], test=test), lines


def _without(part: Part, rows: torch.Tensor) -> Part:
    return Part(part.source, part.index[~torch.isin(part.index, rows)])
