"""Text files that list images, with or without a label each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from mln_lightning.batch import UNKNOWN

_SHOWN = 80  # characters of a line that a message shows


def bad_line(path: Path, number: int, line: str, expected: str) -> ValueError:
    """The error for a line that is not what was expected.

    Args:
        path: the file.
        number: of the line, from 1.
        line: its content.
        expected: what it should be, such as "a path and a label from 0 to 13".
    """
    shown = line if len(line) <= _SHOWN else line[:_SHOWN] + "…"
    return ValueError(f"{path}, line {number}: {shown!r}, expected {expected}.")


def read_keys(path: Path, *, header: str | None = None) -> dict[str, int]:
    """Read a list of images, one in a line.

    Args:
        path: UTF-8 text file; empty lines do not count.
        header: what the first line must begin with; None = there is no header.

    Returns:
        image → number of the line that lists it, in the file's order; the first line where several
        do.

    Raises:
        ValueError: the file is no text, is empty, or has another header.
    """
    keys: dict[str, int] = {}
    for number, line in _lines(path, header):
        keys.setdefault(line, number)
    return _not_empty(path, keys)


def read_labels(
    path: Path, num_labels: int, *, separator: str = " ", header: str | None = None
) -> dict[str, int]:
    """Read a list of images with a label each.

    Args:
        path: UTF-8 text file; a line is an image, the separator and a label, and empty lines do not
            count.
        num_labels: labels are 0 to this less one.
        separator: what stands before the label; an image's name may hold it too.
        header: what the first line must begin with; None = there is no header.

    Returns:
        image → label, in the file's order.

    Raises:
        ValueError: a line is malformed, gives a label out of range or contradicts another, or the
            file is no text, is empty, or has another header.
    """
    allowed = {str(label): label for label in range(num_labels)}
    labels: dict[str, int] = {}
    for number, line in _lines(path, header):
        key, _, text = line.rpartition(separator)
        label = allowed.get(text)
        if label is None or not key:
            between = "a tab" if separator == "\t" else "a space"
            raise bad_line(
                path, number, line, f"a path, {between} and a label from 0 to {num_labels - 1}"
            )
        if labels.setdefault(key, label) != label:
            raise bad_line(path, number, line, f"the label {labels[key]} of an earlier line")
    return _not_empty(path, labels)


def labels_of(
    keys: Mapping[str, int], labels: Mapping[str, int], *, keys_path: Path, labels_path: Path
) -> Tensor:
    """The label of each listed image.

    Args:
        keys: from `read_keys`.
        labels: from `read_labels`.
        keys_path: file the keys are from, for messages.
        labels_path: file the labels are from, for messages.

    Returns:
        ``(N,)`` int64.

    Raises:
        ValueError: an image has no label.
    """
    found = known_labels(keys, labels)
    missing = (found == UNKNOWN).nonzero().squeeze(1)
    if len(missing):
        key, number = list(keys.items())[int(missing[0])]
        raise bad_line(keys_path, number, key, f"an image that has a label in {labels_path.name}")
    return found


def known_labels(keys: Iterable[str], labels: Mapping[str, int]) -> Tensor:
    """``(N,)`` int64 labels of the images, ``UNKNOWN`` where there is none."""
    return torch.tensor([labels.get(key, UNKNOWN) for key in keys], dtype=torch.int64)


def _lines(path: Path, header: str | None) -> list[tuple[int, str]]:
    """Lines that are not empty with their numbers, the header left out."""
    try:
        lines: Sequence[str] = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text file: {error}.") from error
    if header is not None and not lines[0].startswith(header):
        raise bad_line(path, 1, lines[0], f"the header, which begins with {header!r}")
    first = 0 if header is None else 1
    return [(n, line.strip()) for n, line in enumerate(lines[first:], first + 1) if line.strip()]


def _not_empty(path: Path, entries: dict[str, int]) -> dict[str, int]:
    if not entries:
        raise ValueError(f"{path} lists no image: get the published file anew.")
    return entries
