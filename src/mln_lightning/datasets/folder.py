"""A user's own images in folders."""

from __future__ import annotations

import os
from collections.abc import Sequence

from mln_lightning.data.image_format import ImageFormat
from mln_lightning.data.source import Splits
from mln_lightning.datasets.listed import splits_of
from mln_lightning.listing import list_folder

_FORMAT = ImageFormat()


def folder(
    folder: str | os.PathLike[str],
    verified: str | os.PathLike[str] | None = None,
    meta: str | os.PathLike[str] | None = None,
    val: str | os.PathLike[str] | None = None,
    test: str | os.PathLike[str] | None = None,
    unlabelled: str | os.PathLike[str] | None = None,
    classes: Sequence[str] | None = None,
    image_format: ImageFormat = _FORMAT,
) -> Splits:
    """Images whose observed label is the name of the sub-folder they lie in, at any depth.

    Images are known by their suffix, in small or capital letters. Files of other kinds are counted
    in the notes; hidden files and folders are not looked at. The trusted images are those in
    ``verified`` or in ``meta``. A folder of another argument may lie in ``folder`` and is no class
    then.

    Args:
        folder: one sub-folder per class.
        verified: table of training images that someone has checked, CSV or Parquet: column
            ``path``, which starts from ``folder``, from the table's folder or from ``/``, and
            optionally ``label``, the class the image truly shows. Without that column the
            sub-folder's name is confirmed. The observed label stays the sub-folder's.
        meta: one sub-folder per class with trusted images, which are not trained on otherwise.
        val: one sub-folder per class for validation.
        test: one sub-folder per class with right labels.
        unlabelled: images without a label, at any depth, behind the others in the training set.
        classes: names in order, which need not all occur; None = the sub-folders', by value if all
            are whole numbers, else by code point.
        image_format: the shape that all images get.

    Raises:
        FileNotFoundError: a folder or a table is missing.
        ValueError: a folder does not hold what it should, a class of another part is not among the
            classes, or a line of the table does not fit.
    """
    listing = list_folder(
        folder,
        verified=verified,
        meta=meta,
        val=val,
        test=test,
        unlabelled=unlabelled,
        classes=classes,
    )
    return splits_of(listing, image_format)
