"""Fashion-MNIST (Xiao, Rasul & Vollgraf, arXiv 1708.07747, 2017)."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import torch
from torch import Tensor

from mln_lightning.data.source import ImageArrays, Splits
from mln_lightning.datasets.files import check_md5, fetch, require_files

_NAME = "Fashion-MNIST"
_SIZE = 28


def fashion_mnist(data_dir: str | os.PathLike[str], download: bool = False) -> Splits:
    """60,000 training and 10,000 test images, 10 classes, 1 × 28 × 28.

    Reads ``FashionMNIST/raw/*-ubyte.gz`` (or the unpacked files) where they are and writes nothing
    unless asked to download, so the folder may be read-only.

    Args:
        data_dir: folder that holds ``FashionMNIST/``.
        download: fetch missing files first, through torchvision.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged.
    """
    from torchvision import datasets

    folder = Path(data_dir) / "FashionMNIST" / "raw"
    checksums = dict(datasets.FashionMNIST.resources)
    if download and not all(_present(folder / name) for name in checksums):
        fetch(datasets.FashionMNIST, data_dir, name=_NAME)

    def part(prefix: str, size: int) -> ImageArrays:
        images = _read(folder, f"{prefix}-images-idx3-ubyte.gz", (size, 1, _SIZE, _SIZE), checksums)
        labels = _read(folder, f"{prefix}-labels-idx1-ubyte.gz", (size,), checksums)
        return ImageArrays(images, labels.long(), labels.long())

    return Splits(train=part("train", 60_000), test=part("t10k", 10_000))


def _present(packed: Path) -> bool:
    return packed.is_file() or packed.with_suffix("").is_file()


def _read(folder: Path, name: str, shape: tuple[int, ...], checksums: dict[str, str]) -> Tensor:
    """The bytes of an IDX file behind its header, in the given shape."""
    packed = folder / name
    unpacked = packed.with_suffix("")
    if packed.is_file() or not unpacked.is_file():
        put = "Put the published file there, or"
        require_files(packed, name=_NAME, advice=f"{put} run with download=true")
        advice = f"{put} delete it and run with download=true"
        check_md5(packed, checksums[name], name=_NAME, advice=advice)
        path = packed
        content = gzip.decompress(packed.read_bytes())
    else:
        path = unpacked
        content = unpacked.read_bytes()
    count = torch.Size(shape).numel()
    header = len(content) - count
    # The header: two zero bytes, type 8 (unsigned byte), number of axes, and 4 bytes for each axis.
    axes = 1 if len(shape) == 1 else 3
    if header != 4 + 4 * axes or content[:4] != bytes((0, 0, 8, axes)):
        raise ValueError(
            f"{_NAME} is damaged: {path} has {len(content)} bytes after unpacking, expected "
            f"{count + 4 + 4 * axes}. Put the published file there, or delete it and run with "
            "download=true."
        )
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=header).view(shape)
