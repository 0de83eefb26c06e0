"""A list of images chosen by hand: rows, or names."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor

from mln_lightning.batch import UNKNOWN
from mln_lightning.data.parts import BatchSource


def read_rows(path: str | os.PathLike[str], source: BatchSource) -> Tensor:
    """Read which images a text file lists, one in a line: all row numbers, or all names.

    Args:
        path: text file; empty lines do not count.
        source: the images; those listed must be labelled.

    Returns:
        ``(m,)`` int64 rows, ascending.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line names no image, an image without label, or one listed before.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no list of meta images at {path}.")
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    numbered = [(number, line) for number, line in enumerate(lines, start=1) if line]
    if not numbered:
        raise ValueError(f"{path} lists no image; write a row number or a path in each line.")
    total = len(source.labels)
    known: dict[str, int] = {}
    if not all(line.isdecimal() for _, line in numbered):
        known = {source.images.name(row): row for row in range(total)}
    found: dict[int, int] = {}
    for number, line in numbered:
        row = known.get(line, -1) if known else int(line)
        if not 0 <= row < total:
            raise ValueError(
                f"{path}, line {number}: {line!r} is no training image; give rows from 0 to "
                f"{total - 1}, or names such as {source.images.name(0)!r}."
            )
        if row in found:
            raise ValueError(f"{path}, line {number}: {line!r} is listed in line {found[row]} too.")
        if int(source.labels[row]) == UNKNOWN and int(source.clean[row]) == UNKNOWN:
            raise ValueError(f"{path}, line {number}: {line!r} has no label to trust.")
        found[row] = number
    return torch.tensor(sorted(found))
