"""Descriptions of a user's own images for configurations, which need them before torch is loaded.

Each is an OmegaConf resolver: ``info: ${describe_folder:${dataset.source}}``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import DictConfig, ListConfig, OmegaConf

from mln_lightning.errors import UserError
from mln_lightning.listing.classes import Classes
from mln_lightning.listing.folder import list_folder
from mln_lightning.listing.layout import IMAGENET
from mln_lightning.listing.table import list_table

_Listed = TypeVar("_Listed")


def describe_folder(source: DictConfig) -> DictConfig:
    """The fields of `DatasetInfo` for ``dataset=folder``.

    Args:
        source: arguments of `mln_lightning.datasets.folder`.

    Raises:
        UserError: the folder cannot be used.
    """
    _require(source, "folder", "folder")
    shape = _shape(source.image_format)
    listing = _said(
        lambda: list_folder(
            source.folder,
            verified=source.verified,
            meta=source.meta,
            val=source.val,
            test=source.test,
            unlabelled=source.unlabelled,
            classes=source.classes,
        )
    )
    return _info(source.folder, listing.classes, shape, *IMAGENET[shape[0]])


def describe_table(source: DictConfig) -> DictConfig:
    """The fields of `DatasetInfo` for ``dataset=table``.

    Args:
        source: arguments of `mln_lightning.datasets.table`.

    Raises:
        UserError: the table cannot be used.
    """
    _require(source, "table", "table")
    shape = _shape(source.image_format)
    listing = _said(lambda: list_table(source.table, folder=source.folder, classes=source.classes))
    return _info(source.table, listing.classes, shape, *IMAGENET[shape[0]])


def describe_arrays(source: DictConfig) -> DictConfig:
    """The fields of `DatasetInfo` for ``dataset=arrays``.

    Args:
        source: arguments of `mln_lightning.datasets.arrays`.

    Raises:
        UserError: the file cannot be used.
    """
    from mln_lightning.listing.arrays import list_arrays  # imports numpy

    _require(source, "file", "file")
    listed = _said(lambda: list_arrays(source.file))
    return _info(
        source.file,
        listed.classes,
        listed.shape,
        listed.mean,
        listed.std,
        num_train=len(listed.labels["train"]),
    )


def _require(source: DictConfig, key: str, what: str) -> None:
    if source[key] is None:
        raise UserError(f"say which {what}: dataset.source.{key}=<path>")


def _said(read: Callable[[], _Listed]) -> _Listed:
    """What ``read`` returns; its error becomes the user's."""
    try:
        return read()
    except OSError as error:
        if error.strerror is None:
            raise UserError(str(error)) from error
        raise UserError(f"cannot use {error.filename}: {error.strerror}") from error
    except ValueError as error:
        raise UserError(str(error)) from error


def _shape(image_format: DictConfig) -> tuple[int, int, int]:
    """(K, H, W) of an `ImageFormat` that nobody has checked yet."""
    size, channels = image_format.size, image_format.channels
    sides = list(size) if isinstance(size, ListConfig) else [size, size]
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise UserError(
            f"dataset.source.image_format.size={size} is not a size; give one positive whole "
            "number, or [height,width]"
        )
    if channels not in IMAGENET:
        raise UserError(
            f"dataset.source.image_format.channels={channels} is not possible; images have 1 "
            "(gray) or 3 (colour)"
        )
    return channels, *sides


def _info(
    path: str,
    classes: Classes,
    shape: Sequence[int],
    mean: Sequence[float],
    std: Sequence[float],
    *,
    num_train: int | None = None,
) -> DictConfig:
    # Images that cannot be read may be left out, so that of files only reading tells how many.
    description: dict[str, Any] = {
        "_target_": "mln_lightning.data.DatasetInfo",
        "name": Path(path).expanduser().absolute().stem,
        "num_classes": len(classes.names),
        "shape": list(shape),
        "mean": list(mean),
        "std": list(std),
        "num_train": num_train,
        "classes": list(classes.names),
    }
    return OmegaConf.create(description)
