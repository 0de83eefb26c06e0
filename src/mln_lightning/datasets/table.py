"""A user's own images in a table."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Literal, get_args

from mln_lightning.data.image_format import ImageFormat
from mln_lightning.data.source import Splits
from mln_lightning.datasets.listed import splits_of
from mln_lightning.listing import list_table

OnBadImage = Literal["error", "skip"]

_FORMAT = ImageFormat()


def table(
    table: str | os.PathLike[str],
    folder: str | os.PathLike[str] | None = None,
    classes: Sequence[str] | None = None,
    on_bad_image: OnBadImage = "error",
    image_format: ImageFormat = _FORMAT,
) -> Splits:
    """Images listed in a table, with labels and all that is known about them.

    Columns, by name:

    - ``path``: the image's file.
    - ``label``: observed class, a name or a number. Empty = unlabelled, in the training set only.
    - ``is_clean``, optional: ``true`` = the label is right and the image trusted. ``false`` = it is
      not trusted, and its ``clean_label``, if there is one, serves for metrics only. Empty = it is
      trusted if it has a ``clean_label``.
    - ``clean_label``, optional: the true class where it is known.
    - ``split``, optional: ``train`` or empty, ``val``, ``meta`` or ``test``. The labels of ``meta``
      and ``test`` must be right; where there is a ``clean_label`` they use that.

    Other columns are not read. ``1`` counts as ``true`` and ``0`` as ``false``, and so do ``yes``
    and ``no``.

    Args:
        table: Parquet (``.parquet``; needs pyarrow), or CSV in UTF-8 with commas, semicolons or
            tabs.
        folder: where relative paths start; None = the table's folder.
        classes: names in order, which need not all occur; None = the training labels, by value if
            all are whole numbers, else by code point.
        on_bad_image: ``error``: every file must exist. ``skip``: the data module leaves out those
            that do not.
        image_format: the shape that all images get.

    Raises:
        FileNotFoundError: the table, the folder or an image is missing.
        ValueError: an unknown choice, or a line does not fit; names the file and the line.
    """
    if on_bad_image not in get_args(OnBadImage):
        raise ValueError(f"on_bad_image is error or skip, got {on_bad_image!r}.")
    must_exist = on_bad_image == "error"
    listing = list_table(table, folder=folder, classes=classes, must_exist=must_exist)
    return splits_of(listing, image_format)
