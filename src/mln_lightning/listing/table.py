"""Images in a table, with labels and all that is known about them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from mln_lightning.listing.classes import Classes, nearest
from mln_lightning.listing.columns import Columns, read_columns
from mln_lightning.listing.parts import Labels, Listing, Part, true_class
from mln_lightning.listing.tree import require_folder

_SPLITS = ("train", "val", "meta", "test")
_FLAGS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False, "": None}


def list_table(
    table: str | os.PathLike[str],
    *,
    folder: str | os.PathLike[str] | None = None,
    classes: Sequence[object] | None = None,
    must_exist: bool = False,
) -> Listing:
    """List the images of a table; the columns are those of `mln_lightning.datasets.table`.

    Args:
        table: CSV or Parquet file.
        folder: where relative paths start; None = the table's folder.
        classes: class names in order; None = those of the training labels.
        must_exist: look whether there is a file for each row.

    Raises:
        FileNotFoundError: the table, the folder or an image is missing.
        ValueError: names the file, the line and what is wrong there.
        OSError: a file cannot be read.
    """
    columns = read_columns(
        table,
        key="dataset.source.table",
        required=["path", "label"],
        optional=["is_clean", "split", "clean_label"],
    )
    root = columns.path.parent
    if folder is not None:
        root = require_folder(folder, "dataset.source.folder")
    _check_paths(columns, root, must_exist=must_exist)
    splits = [_split(cell, columns, row) for row, cell in enumerate(columns["split"])]
    if "train" not in splits:
        raise ValueError(f"{columns.path} has no training image: every row has another split.")
    labels = zip(columns["label"], splits, strict=True)
    known = Classes.of((label for label, split in labels if split == "train" and label), classes)
    parts = {split: Part(root, [], Labels()) for split in set(splits)}
    names = ("path", "label", "clean_label", "is_clean")
    cells = zip(splits, *(columns[name] for name in names), strict=True)
    for row, (split, path, label, clean_label, is_clean) in enumerate(cells):
        where = columns.where(row)
        parts[split].paths.append(path)
        parts[split].labels.add(*_label(split, label, clean_label, is_clean, known, where))
    return Listing(
        known,
        parts["train"],
        val=parts.get("val"),
        meta=parts.get("meta"),
        test=parts.get("test"),
    )


def _label(
    split: str, label: str, clean_label: str, is_clean: str, classes: Classes, where: str
) -> tuple[int | None, int | None, bool]:
    """Observed label, true class, and whether it is trusted, of a row with these cells."""
    observed = classes.number(label, where) if label else None
    known = classes.number(clean_label, where) if clean_label else None
    sure = _flag(is_clean, where)
    true, trust = true_class(observed, known, sure, where)
    if split in ("meta", "test"):
        if sure is False and true is None:
            raise ValueError(
                f"{where}: an image with split={split} must have a right label, and is_clean says "
                "that its label is not; give its clean_label, or take it off the table."
            )
        observed = observed if true is None else true
    if observed is None and split != "train":
        raise ValueError(f"{where}: an image with split={split} must have a label.")
    return observed, true, trust


def _check_paths(columns: Columns, root: Path, *, must_exist: bool) -> None:
    first: dict[str, int] = {}
    missing = []
    paths = columns["path"]
    for row, path in enumerate(paths):
        if not path:
            raise ValueError(f"{columns.where(row)}: there is no path; name the image's file.")
        file = os.path.normpath(os.path.join(root, path))
        if file in first:
            raise ValueError(
                f"{columns.where(row)}: {path!r} is listed in {columns.short(first[file])} too; "
                "remove one."
            )
        first[file] = row
        if must_exist and not os.path.isfile(file):
            missing.append(row)
    if missing:
        raise FileNotFoundError(
            f"{columns.where(missing[0])}: there is no image {paths[missing[0]]!r} in "
            f"{root}, and {len(missing)} of {len(columns)} are missing in all; correct the paths, "
            "name their folder with dataset.source.folder, or leave missing images out with "
            "dataset.on_bad_image=skip."
        )


def _split(cell: str, columns: Columns, row: int) -> str:
    split = cell.lower() or "train"
    if split not in _SPLITS:
        raise ValueError(
            f"{columns.where(row)}: split {cell!r} is unknown{nearest(cell, _SPLITS)}. It is one "
            f"of {', '.join(_SPLITS)}, or empty for train."
        )
    return split


def _flag(cell: str, where: str) -> bool | None:
    if cell.lower() not in _FLAGS:
        raise ValueError(
            f"{where}: is_clean is {cell!r}; write true or false (or 1 or 0, yes or no), or leave "
            "it empty."
        )
    return _FLAGS[cell.lower()]
