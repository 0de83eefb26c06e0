"""Observed labels that somebody has recorded: a file instead of a draw."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from mln_lightning.batch import UNKNOWN
from mln_lightning.noise.base import Images
from mln_lightning.noise.checks import check_classes
from mln_lightning.noise.files import existing, read_array, read_arrays
from mln_lightning.noise.record import NoiseRecord

_WHAT = "recorded labels"
_OBSERVED = ("observed", "observed_label", "labels")
_CLEAN = ("clean", "clean_label", "clean_labels")
_INDEX = ("index", "sample")


@dataclass(frozen=True)
class _Columns:
    """What a file says: one entry for each recorded label."""

    observed: np.ndarray
    truth: np.ndarray | None = None
    index: np.ndarray | None = None


class RecordedLabels:
    """Observed labels from a file, such as those of another run.

    Kinds of files:

    * ``.npz`` with ``observed`` or ``labels``, and perhaps ``clean``: a run's ``noise.npz``, for
      example, whose checksum is compared too;
    * ``.npy``: the labels alone;
    * ``.csv`` with a column ``observed_label``, and perhaps ``clean_label`` and ``index`` or
      ``sample``, the row in the data set: a run's ``labels.csv``, for example.

    Labels are numbers, 0…C-1 or -1 for unlabelled; in a ``.csv`` they may be the names of classes,
    or empty for unlabelled. Clean labels in the file must be those of the
    data set: a file of other data, or in another order, is refused.

    Args:
        file: as above; without index, one label for each training image in the data set's order.
        num_classes: C.
        classes: the C names, for a ``.csv`` that names them; a cell is looked up here first.
        column: name of the observed labels in an ``.npz`` or ``.csv`` file, such as
            ``corrected_label``; None = the names above.
        missing: what becomes of images that a file with an index does not name.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file cannot be read, or holds something else than labels of C classes.
    """

    def __init__(
        self,
        file: str | os.PathLike[str] | None,
        num_classes: int,
        classes: Sequence[str] | None = None,
        column: str | None = None,
        missing: Literal["error", "unlabelled"] = "error",
    ) -> None:
        if missing not in ("error", "unlabelled"):
            raise ValueError(f"missing must be error or unlabelled, got {missing!r}.")
        self.path = existing(file, what=_WHAT, key="noise.file")
        self.num_classes = num_classes
        self.missing = missing
        names = _OBSERVED if column is None else (column,)
        numbers = {str(name): number for number, name in enumerate(classes or ())}
        self._columns = _read(self.path, names, numbers)
        observed = self._columns.observed
        if len(observed) and not UNKNOWN <= observed.min() <= observed.max() < num_classes:
            raise ValueError(
                f"The labels in {self.path} run from {observed.min()} to {observed.max()}; the "
                f"data set's classes are 0 to {num_classes - 1}, and {UNKNOWN} means unlabelled."
            )

    def __call__(
        self, labels: Tensor, images: Images | None = None, *, generator: torch.Generator
    ) -> Tensor:
        """The recorded labels.

        Args:
            labels: ``(N,)`` int64 clean labels in 0…C-1; not changed.
            images: not looked at.
            generator: not used.

        Returns:
            ``(N,)`` int64, 0…C-1 or ``UNKNOWN``.

        Raises:
            ValueError: the file does not fit the labels.
        """
        check_classes(labels, self.num_classes)
        rows = self._rows(len(labels))
        if self._columns.truth is not None:
            recorded = torch.from_numpy(self._columns.truth)
            differ = ((recorded != labels[rows]) & (recorded != UNKNOWN)).nonzero().squeeze(1)
            if len(differ):
                raise ValueError(
                    f"{self.path} belongs to other data, or another order of them: its clean "
                    f"labels differ from the data set's in {len(differ)} of {len(rows)} rows, "
                    f"first in row {int(rows[differ[0]])}."
                )
        observed = torch.full_like(labels, UNKNOWN)
        observed[rows] = torch.from_numpy(self._columns.observed)
        return observed

    def _rows(self, total: int) -> Tensor:
        """``(n,)`` rows of the data set that the file speaks of."""
        found = len(self._columns.observed)
        if self._columns.index is None:
            if found != total:
                raise ValueError(
                    f"{self.path} holds {found} labels, the training set has {total} images: there "
                    "must be one for each, or an index."
                )
            return torch.arange(total)
        rows = torch.from_numpy(self._columns.index)
        if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < total:
            raise ValueError(
                f"The index in {self.path} runs from {int(rows.min())} to {int(rows.max())}, the "
                f"training set has rows 0 to {total - 1}."
            )
        times = torch.bincount(rows, minlength=total)
        if bool((times > 1).any()):
            raise ValueError(
                f"{self.path} names row {int(times.argmax())} {int(times.max())} times; each row "
                "can have one label."
            )
        if self.missing == "error" and found != total:
            raise ValueError(
                f"{self.path} labels {found} of the {total} training images, the first without is "
                f"row {int((times == 0).nonzero()[0])}; missing=unlabelled leaves the others "
                "without a label."
            )
        return rows


def _read(path: Path, names: tuple[str, ...], classes: Mapping[str, int]) -> _Columns:
    kind = path.suffix.lower()
    if kind == ".npy":
        return _Columns(_integers(path, "labels", read_array(path, what=_WHAT)))
    if kind == ".csv":
        return _read_csv(path, names, classes)
    if kind != ".npz":
        raise ValueError(f"The file of the {_WHAT} must be .npz, .npy or .csv, got {path}.")
    arrays = read_arrays(path, what=_WHAT)
    if "sha256" in arrays:
        NoiseRecord.load(path)  # compares the checksum
    name = _name(names, list(arrays), path)
    clean = next((arrays[name] for name in _CLEAN if name in arrays), None)
    columns = _Columns(
        _integers(path, name, arrays[name]),
        None if clean is None else _integers(path, "clean labels", clean),
    )
    if columns.truth is not None and len(columns.truth) != len(columns.observed):
        raise ValueError(
            f"{path} holds {len(columns.observed)} observed and {len(columns.truth)} clean labels; "
            "they must pair up."
        )
    return columns


def _read_csv(path: Path, names: tuple[str, ...], classes: Mapping[str, int]) -> _Columns:
    try:
        with path.open(encoding="utf-8-sig", newline="", errors="surrogateescape") as file:
            header, *lines = list(csv.reader(file)) or [[]]
    except csv.Error as error:
        raise ValueError(f"The file of the {_WHAT} cannot be read: {path}: {error}.") from error
    labels = {"": UNKNOWN, **classes}

    def column(names: tuple[str, ...], known: Mapping[str, int]) -> np.ndarray | None:
        name = next((name for name in names if name in header), None)
        return None if name is None else _numbers(path, name, header.index(name), lines, known)

    observed = _name(names, header, path)
    return _Columns(
        _numbers(path, observed, header.index(observed), lines, labels),
        column(_CLEAN, labels),
        column(_INDEX, {}),
    )


def _numbers(
    path: Path, name: str, place: int, lines: list[list[str]], known: Mapping[str, int]
) -> np.ndarray:
    """``(n,)`` int64: a cell that is known stands for its number, any other is a number."""
    numbers = np.empty(len(lines), dtype=np.int64)
    for row, line in enumerate(lines):
        try:
            cell = line[place]
            numbers[row] = known[cell] if cell in known else int(cell)
        except (IndexError, ValueError, OverflowError):
            allowed = "a class of the data set or a whole number" if known else "a whole number"
            raise ValueError(
                f"{path}, line {row + 2}: {name} must be {allowed}, the line is {','.join(line)!r}."
            ) from None
    return numbers


def _name(wanted: tuple[str, ...], found: list[str], path: Path) -> str:
    """The first wanted name that is there."""
    for name in wanted:
        if name in found:
            return name
    raise ValueError(
        f"{path} has no labels named {' or '.join(wanted)}, only {', '.join(found) or 'nothing'}; "
        "name them with noise.column."
    )


def _integers(path: Path, name: str, values: np.ndarray) -> np.ndarray:
    if values.dtype.kind not in "iu" or values.ndim != 1:
        raise ValueError(
            f"The {name} in {path} must be one whole number for each image, got {values.dtype} of "
            f"shape {values.shape}."
        )
    return values.astype(np.int64)
