"""Images in one ``.npz`` file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile, ZipFile, is_zipfile

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from mln_lightning.listing.classes import Classes, nearest, shown
from mln_lightning.listing.layout import image_shape
from mln_lightning.listing.parts import Labels
from mln_lightning.listing.tree import require_file

_PARTS = ("train", "val", "meta", "test")
_OPTIONAL = (
    *(f"{part}_{kind}" for part in _PARTS[1:] for kind in ("images", "labels")),
    *("clean_labels", "is_clean", "class_names", "mean", "std"),
)
_NEAR = 0.8


@dataclass(frozen=True, eq=False)
class ListedArrays:
    """What an ``.npz`` file holds, its images apart.

    Attributes:
        path: the file.
        classes: names, or the numbers as names.
        shape: (K, H, W) of the training images.
        mean: K means of pixels on the scale 0…1.
        std: K deviations.
        labels: part → labels; "train", and those of "val", "meta" and "test" that there are.
    """

    path: Path
    classes: Classes
    shape: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    labels: dict[str, Labels]


def images_key(part: str) -> str:
    """What the images of a part are called in the file."""
    return "images" if part == "train" else f"{part}_images"


def list_arrays(file: str | os.PathLike[str]) -> ListedArrays:
    """Read all but the images of an ``.npz`` file; the keys are those of `datasets.arrays`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no ``.npz`` file, a key is missing, or the labels do not fit.
        OSError: it cannot be read.
    """
    path = require_file(file, "dataset.source.file")
    with open_arrays(path) as content:
        _check_keys(path, list(content.files))
        shape = image_shape(_header(path, "images"))
        classes = _classes(path, content)
        labels = {
            part: _labels(path, content, part, classes)
            for part in _PARTS
            if images_key(part) in content
        }
        channels = shape[0] if shape else 1
        mean = _floats(path, content, "mean", [0.5] * channels)
        std = _floats(path, content, "std", [0.25] * channels)
    return ListedArrays(path, classes, shape, mean, std, labels)


def open_arrays(path: Path) -> NpzFile:
    """Open an ``.npz`` file, pickled objects refused.

    Raises:
        ValueError: it is none.
    """
    if not is_zipfile(path):
        raise ValueError(
            f"{path} is no .npz file; write one with numpy.savez(path, images=…, labels=…)."
        )
    content = np.load(path, allow_pickle=False)
    assert isinstance(content, NpzFile)
    return content


def read_array(path: Path, content: NpzFile, key: str) -> NDArray[np.generic]:
    """One array of the file.

    Raises:
        ValueError: it is damaged, or holds pickled objects.
    """
    try:
        array: NDArray[np.generic] = content[key]
    except (ValueError, BadZipFile, EOFError, OSError) as error:
        raise ValueError(f"{key} in {path} cannot be read ({error}).") from error
    return array


def _check_keys(path: Path, keys: Sequence[str]) -> None:
    for key in ("images", "labels"):
        if key not in keys:
            raise ValueError(
                f"{path} has no array {key!r}{nearest(key, keys)}; it has {shown(keys)}."
            )
    for part in _PARTS[1:]:
        pair = [f"{part}_{kind}" for kind in ("images", "labels")]
        if len(given := [key for key in pair if key in keys]) == 1:
            raise ValueError(f"{path} has {given[0]}, but not both of {' and '.join(pair)}.")
    unread = [key for key in keys if key not in ("images", "labels", *_OPTIONAL)]
    missing = [key for key in _OPTIONAL if key not in keys]
    for key in unread:
        if hint := nearest(key, missing, likeness=_NEAR):
            raise ValueError(f"{path} has an array {key!r}, which is not read{hint}; rename it.")


def _header(path: Path, key: str) -> tuple[int, ...]:
    """The shape of an array, the rest of which stays unread."""
    try:
        with ZipFile(path) as archive, archive.open(f"{key}.npy") as stream:
            version = np.lib.format.read_magic(stream)
            read = (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else np.lib.format.read_array_header_2_0
            )
            shape, _, dtype = read(stream)
    except (ValueError, BadZipFile, EOFError, OSError) as error:
        raise ValueError(f"{key} in {path} cannot be read ({error}).") from error
    if dtype != np.uint8 or len(shape) not in (3, 4):
        raise ValueError(
            f"{key} in {path} must be uint8 of shape (N, H, W), (N, H, W, K) or (N, K, H, W), got "
            f"{dtype} of shape {shape}."
        )
    return tuple(shape)


def _classes(path: Path, content: NpzFile) -> Classes:
    if "class_names" in content:
        names = read_array(path, content, "class_names")
        if names.ndim != 1 or names.dtype.kind != "U":
            raise ValueError(
                f"class_names in {path} must be a list of texts, got {names.dtype} of shape "
                f"{names.shape}."
            )
        return Classes(tuple(names.tolist()))
    labels = [label for label in _integers(path, content, "labels") if label is not None]
    found = set(labels)
    if absent := sorted(set(range(max(found, default=0) + 1)) - found):
        raise ValueError(
            f"labels in {path} run to {max(found, default=0)}, and no image has "
            f"{shown([str(label) for label in absent])}: number the classes from 0, or name all of "
            "them in class_names."
        )
    return Classes(tuple(str(label) for label in sorted(found)))


def _labels(path: Path, content: NpzFile, part: str, classes: Classes) -> Labels:
    key = "labels" if part == "train" else f"{part}_labels"
    observed = _integers(path, content, key)
    images = _header(path, images_key(part))[0]
    if len(observed) != images:
        raise ValueError(f"{path} has {images} {images_key(part)} and {len(observed)} {key}.")
    truth: list[int | None] | None = None
    is_clean: list[bool | None] | None = None
    if part == "train":
        if "clean_labels" in content:
            truth = _integers(path, content, "clean_labels")
        if "is_clean" in content:
            is_clean = _flags(path, content)
    elif None in observed:
        raise ValueError(f"Row {observed.index(None)} of {key} in {path} has no label.")
    for name, values in ((key, observed), ("clean_labels", truth or [])):
        high = max((value for value in values if value is not None), default=0)
        if high >= len(classes.names):
            raise ValueError(
                f"Row {values.index(high)} of {name} in {path} is {high}, but the classes are 0 to "
                f"{len(classes.names) - 1}; correct it, or name all classes in class_names."
            )
    for name, others in (("clean_labels", truth), ("is_clean", is_clean)):
        if others is not None and len(others) != len(observed):
            raise ValueError(f"{path} has {len(observed)} {key} and {len(others)} {name}.")
    return Labels.of(observed, truth, is_clean, lambda row: f"{path}, row {row}")


def _integers(path: Path, content: NpzFile, key: str) -> list[int | None]:
    """Class numbers; -1 becomes None."""
    values = read_array(path, content, key)
    if values.ndim != 1 or values.dtype.kind not in "iu":
        raise ValueError(
            f"{key} in {path} must be whole numbers of shape (N,), got {values.dtype} of shape "
            f"{values.shape}."
        )
    numbers = values.tolist()
    if min(numbers, default=0) < -1:
        raise ValueError(
            f"{key} in {path} must be classes from 0 up, or -1 for none, got {min(numbers)}."
        )
    return [None if number == -1 else number for number in numbers]


def _flags(path: Path, content: NpzFile) -> list[bool | None]:
    values = read_array(path, content, "is_clean")
    if values.ndim != 1 or values.dtype.kind not in "biu" or not np.isin(values, (0, 1)).all():
        raise ValueError(
            f"is_clean in {path} must be true or false for each image, got {values.dtype} of shape "
            f"{values.shape}."
        )
    return [bool(value) for value in values.tolist()]


def _floats(path: Path, content: NpzFile, key: str, default: list[float]) -> tuple[float, ...]:
    if key not in content:
        return tuple(default)
    values = read_array(path, content, key)
    if values.shape != (len(default),) or values.dtype.kind not in "fiu":
        raise ValueError(
            f"{key} in {path} must be {len(default)} numbers, one for each channel, got "
            f"{values.dtype} of shape {values.shape}."
        )
    return tuple(float(value) for value in values.tolist())
