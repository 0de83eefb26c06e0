"""Images of the Hugging Face library ``datasets``, from Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mln_lightning.data.encoded import EncodedImages
from mln_lightning.data.image_format import ImageFormat
from mln_lightning.data.source import DatasetInfo
from mln_lightning.datasets.listed import tensors
from mln_lightning.listing import Classes, Labels
from mln_lightning.listing.classes import nearest, shown
from mln_lightning.listing.layout import IMAGENET

if TYPE_CHECKING:
    from datasets import Dataset

_FORMAT = ImageFormat()


def hugging_face(
    dataset: Dataset,
    image: str = "image",
    label: str = "label",
    clean_label: str | None = None,
    is_clean: str | None = None,
    classes: Sequence[str] | None = None,
    image_format: ImageFormat = _FORMAT,
) -> EncodedImages:
    """One split of a ``datasets`` data set; its images are decoded when they are needed.

    A label is a number or a name of a class; None and -1 mean that there is none.

    Args:
        dataset: such as ``load_dataset(…)["train"]``.
        image: column of images.
        label: column of observed labels.
        clean_label: column of true classes where they are known.
        is_clean: column of bools: true = the label is right and the image trusted, false = it is
            not trusted, None = it is trusted if it has a true class.
        classes: names in order; None = those of the label column, see `hugging_face_info`. Name
            them for a test set without ``ClassLabel``, so that it has the training set's.
        image_format: the shape that all images get.

    Raises:
        ValueError: it is no single split, a column is missing or of another type, or a label does
            not fit.
    """
    _check(dataset, [image, label, *filter(None, [clean_label, is_clean])])
    known = _classes(dataset, label, classes)
    labels = Labels.of(
        _numbers(dataset, label, known),
        None if clean_label is None else _numbers(dataset, clean_label, known),
        None if is_clean is None else _flags(dataset, is_clean),
        lambda row: f"row {row}",
    )
    return EncodedImages(_Images(dataset, image), *tensors(labels), image_format=image_format)


def hugging_face_info(
    dataset: Dataset,
    label: str = "label",
    classes: Sequence[str] | None = None,
    image_format: ImageFormat = _FORMAT,
    name: str = "hugging_face",
) -> DatasetInfo:
    """The description of a training set that `hugging_face` reads.

    The classes are those of a ``ClassLabel``, or the names that occur, in order of code points;
    numbers without names are classes from 0 up. Mean and deviation are ImageNet's.

    Args:
        dataset: the training split.
        label: column of observed labels.
        classes: names in order, instead.
        image_format: the shape that all images get.
        name: for tables and file names.

    Raises:
        ValueError: it is no single split, there is no such column, or there are too few classes.
    """
    _check(dataset, [label])
    names = _classes(dataset, label, classes).names
    mean, std = IMAGENET[image_format.channels]
    return DatasetInfo(name, len(names), image_format.shape, mean, std, classes=names)


class _Images:
    """A column of encoded images."""

    def __init__(self, dataset: Dataset, column: str) -> None:
        from datasets import Image

        if not isinstance(dataset.features[column], Image):
            raise ValueError(
                f"The column {column!r} holds no images but {dataset.features[column]}; turn it "
                f"into images with dataset.cast_column({column!r}, datasets.Image())."
            )
        only = dataset.with_format(None).select_columns([column])
        self._files = only.cast_column(column, Image(decode=False))
        self._column = column

    def __len__(self) -> int:
        return len(self._files)

    def name(self, row: int) -> str:
        """The path where there is one, else the row."""
        return self._entry(row)["path"] or f"row {row}"

    def read(self, row: int) -> bytes:
        """The encoded image."""
        entry = self._entry(row)
        content: bytes | None = entry["bytes"]
        return Path(entry["path"]).read_bytes() if content is None else content

    def _entry(self, row: int) -> Mapping[str, Any]:
        entry: Mapping[str, Any] | None = self._files[row][self._column]
        return {"path": None, "bytes": b""} if entry is None else entry


def _check(dataset: Dataset, columns: Sequence[str]) -> None:
    from datasets import Dataset

    if not isinstance(dataset, Dataset):
        raise ValueError(
            f"A single split that lies on disk or in memory is needed, got {type(dataset).__name__}"
            "; choose one, such as load_dataset(…)['train'], without streaming."
        )
    for column in columns:
        if column not in dataset.column_names:
            raise ValueError(
                f"There is no column {column!r}{nearest(column, dataset.column_names)}; the "
                f"columns are {shown(dataset.column_names)}."
            )


def _classes(dataset: Dataset, column: str, given: Sequence[str] | None) -> Classes:
    from datasets import ClassLabel

    feature = dataset.features[column]
    if given is None and isinstance(feature, ClassLabel):
        return Classes(tuple(feature.names))
    found = {value for value in _values(dataset, column) if value not in (None, -1)}
    if given is None and all(isinstance(value, int) for value in found):
        return Classes(tuple(str(number) for number in range(max(found, default=-1) + 1)))
    return Classes.of((str(value) for value in found), given)


def _numbers(dataset: Dataset, column: str, classes: Classes) -> list[int | None]:
    """Class numbers of a column of names or numbers, by the names where there are some."""
    from datasets import ClassLabel

    feature = dataset.features[column]
    names = feature.names if isinstance(feature, ClassLabel) else None
    numbers: list[int | None] = []
    for row, value in enumerate(_values(dataset, column)):
        where = f"{column!r} in row {row}"
        if value is None or value == -1:
            numbers.append(None)
        elif isinstance(value, str) or names is not None:
            name = names[value] if names is not None and isinstance(value, int) else value
            numbers.append(classes.number(name, where))
        elif isinstance(value, int) and 0 <= value < len(classes.names):
            numbers.append(value)
        else:
            raise ValueError(f"{where} is {value!r}; classes are 0 to {len(classes.names) - 1}.")
    return numbers


def _flags(dataset: Dataset, column: str) -> list[bool | None]:
    flags: list[bool | None] = []
    for row, value in enumerate(_values(dataset, column)):
        if value not in (None, False, True):
            raise ValueError(
                f"{column!r} in row {row} is {value!r}; it must be true, false or None."
            )
        flags.append(None if value is None else bool(value))
    return flags


def _values(dataset: Dataset, column: str) -> list[Any]:
    return list(dataset.with_format(None).select_columns([column])[:][column])
