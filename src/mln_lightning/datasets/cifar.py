"""CIFAR-10 and CIFAR-100 (Krizhevsky, *Learning Multiple Layers of Features*, 2009)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mln_lightning.data.source import ImageArrays, Splits
from mln_lightning.datasets.files import check_md5, fetch, require_files
from mln_lightning.unpickle import load_arrays

_SHAPE = (3, 32, 32)


def cifar10(
    data_dir: str | os.PathLike[str], download: bool = False, verify: bool = True
) -> Splits:
    """50,000 training and 10,000 test images, 10 classes, 3 × 32 × 32.

    Args:
        data_dir: folder that holds ``cifar-10-batches-py/``.
        download: fetch the data first if they are missing, through torchvision.
        verify: read only the published files. False takes a complete copy that was packed anew
            (other checksums), after checking shapes, label counts and value ranges.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged.
    """
    from torchvision.datasets import CIFAR10

    return read_batches(
        CIFAR10, data_dir, name="CIFAR-10", per_class=(5000, 1000), download=download, verify=verify
    )


def cifar100(
    data_dir: str | os.PathLike[str], download: bool = False, verify: bool = True
) -> Splits:
    """50,000 training and 10,000 test images, 100 (fine) classes, 3 × 32 × 32.

    Args:
        data_dir: folder that holds ``cifar-100-python/``.
        download: as in `cifar10`.
        verify: as in `cifar10`.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged.
    """
    from torchvision.datasets import CIFAR100

    return read_batches(
        CIFAR100, data_dir, name="CIFAR-100", per_class=(500, 100), download=download, verify=verify
    )


def read_batches(
    reader: Any,
    data_dir: str | os.PathLike[str],
    *,
    name: str,
    per_class: tuple[int, int],
    download: bool,
    verify: bool,
) -> Splits:
    """Read a data set in CIFAR's file format.

    Args:
        reader: torchvision's class; names the files and their checksums, and reads verified ones.
        data_dir: folder that holds the reader's ``base_folder``.
        name: for messages.
        per_class: images of each class in the training and in the test set.
        download: fetch missing data.
        verify: insist on the published checksums.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged.
    """
    folder = Path(data_dir) / reader.base_folder
    sums = dict(
        [*reader.train_list, *reader.test_list, (reader.meta["filename"], reader.meta["md5"])]
    )
    if download and not all((folder / file).is_file() for file in sums):
        fetch(reader, data_dir, name=name)
    unpack = f"Unpack the published {reader.filename} in {data_dir}"
    require_files(
        *(folder / file for file in sums),
        name=name,
        advice=f"{unpack}, or run with download=true",
    )
    if verify:
        for file, md5 in sums.items():
            advice = (
                f"{unpack}, or delete the file and run with download=true; "
                "dataset.verify=false reads a complete copy with other checksums"
            )
            check_md5(folder / file, md5, name=name, advice=advice)
    parts = []
    for is_train, files, count in (
        (True, reader.train_list, per_class[0]),
        (False, reader.test_list, per_class[1]),
    ):
        if verify:
            read = reader(str(data_dir), train=is_train)
            part = ImageArrays.from_numpy(read.data, read.targets, read.targets)
        else:
            part = _concatenate([_read_unverified(folder / file, name) for file, _ in files])
            _check_content(
                part, name=name, part="training" if is_train else "test", per_class=count
            )
        parts.append(part)
    return Splits(train=parts[0], test=parts[1])


def _read_unverified(path: Path, name: str) -> ImageArrays:
    try:
        with path.open("rb") as file:
            entry = load_arrays(file, encoding="latin1")
        labels = entry["fine_labels"] if "fine_labels" in entry else entry["labels"]
        data = np.asarray(entry["data"])
        if data.dtype != np.uint8 or data.shape != (len(labels), torch.Size(_SHAPE).numel()):
            raise ValueError(f"its images are {data.dtype} {data.shape} for {len(labels)} labels")
        return ImageArrays.from_numpy(data.reshape(-1, *_SHAPE), labels, labels)
    # A damaged pickle may fail in any way: its bytes are a program.
    except Exception as error:
        raise ValueError(
            f"{name} is damaged: {path} ({path.stat().st_size} bytes) cannot be read: {error}."
        ) from error


def _concatenate(parts: list[ImageArrays]) -> ImageArrays:
    labels = torch.cat([part.labels for part in parts])
    return ImageArrays(torch.cat([part.images for part in parts]), labels, labels)


def _check_content(data: ImageArrays, *, name: str, part: str, per_class: int) -> None:
    counts: Tensor = data.labels.clamp(min=0).bincount()
    if bool((counts != per_class).any()) or bool((data.labels < 0).any()):
        raise ValueError(
            f"{name} is damaged: every class should have {per_class} {part} images, "
            f"found {int(counts.min())} to {int(counts.max())} of {len(counts)} classes."
        )
    low, high = int(data.images.min()), int(data.images.max())
    if low > 63 or high < 192:
        raise ValueError(
            f"{name} is damaged: the grey values of the {part} images should span 0 to 255, "
            f"they run from {low} to {high}."
        )
