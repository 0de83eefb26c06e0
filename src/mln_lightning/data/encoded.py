"""Images that stay encoded, as files on disk or inside other files, until they are fetched."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from mln_lightning.data.decode import Decoded, ImageError, ReadError, decode
from mln_lightning.data.image_format import ImageFormat
from mln_lightning.data.layout import check_labels, check_trusted

__all__ = ["EncodedImages", "ImageFiles", "ImageFormat", "ImageStore"]


class ImageStore(Protocol):
    """N image files, wherever they lie. Worker processes get a copy by pickle or fork."""

    def __len__(self) -> int:
        """N."""
        ...

    def name(self, row: int) -> str:
        """What a message calls the image, such as its path."""
        ...

    def read(self, row: int) -> bytes:
        """The encoded image.

        Raises:
            OSError: it cannot be read; a FileNotFoundError if it does not exist.
        """
        ...


@runtime_checkable
class Sized(Protocol):
    """Images, or a store of them, that may know an image's length without reading it."""

    def size(self, row: int) -> int | None:
        """Bytes of its content; None = only reading tells.

        Raises:
            OSError: the image does not exist.
        """
        ...


class Inspection(NamedTuple):
    """What was seen of an image.

    Attributes:
        width: in the file, upright; 0 if it cannot be used.
        height: in the file, upright; 0 if it cannot be used.
        mode: Pillow's name for the kind of pixels in the file, or "".
        problem: why it cannot be used, or "".
    """

    width: int = 0
    height: int = 0
    mode: str = ""
    problem: str = ""

    @classmethod
    def of(cls, image: Decoded) -> Inspection:
        """A good image."""
        return cls(image.width, image.height, image.mode)


class ImageFiles:
    """Image files in the file system.

    Args:
        root: folder that the paths start from.
        paths: one per image, relative to ``root`` or absolute; also its name in messages.
    """

    def __init__(self, root: Path, paths: Sequence[str]) -> None:
        self.root = Path(root)
        # One block of bytes: worker processes would copy a list of strings page by page, because
        # looking at a string changes its reference count.
        self._paths = np.array([os.fsencode(path) for path in paths], dtype=np.bytes_)

    def __len__(self) -> int:
        return len(self._paths)

    def name(self, row: int) -> str:
        """The path as it was given."""
        return os.fsdecode(bytes(self._paths[row]))

    def path(self, row: int) -> Path:
        """Where the file lies."""
        return self.root / self.name(row)

    def read(self, row: int) -> bytes:
        """The file's content."""
        return self.path(row).read_bytes()

    def size(self, row: int) -> int:
        """Bytes of the file."""
        return os.stat(os.path.join(self.root, self.name(row))).st_size

    def stamp(self, row: int) -> str:
        """Changes when the file does: its place, its size and when it was written."""
        path = os.path.join(os.path.abspath(self.root), self.name(row))  # Path is slow for millions
        try:
            status = os.stat(path)
        except OSError as error:
            return f"{path} {error.errno}"
        return f"{path} {status.st_size} {status.st_mtime_ns}"


@dataclass(frozen=True, eq=False)
class EncodedImages:
    """A set of encoded images, decoded at each fetch.

    Attributes:
        store: the image files, at least N.
        labels: ``(N,)`` int64, ``UNKNOWN`` = unlabelled.
        clean: ``(N,)`` int64 true classes or ``UNKNOWN``, where ``labels`` may be wrong; optional.
        trusted: ``(N,)`` bool, see `LabeledImages.trusted`; optional.
        image_format: the shape that all images get.
        rows: ``(N,)`` int64, where in the store each image lies; None = in its order.

    Raises:
        ValueError: a type, a shape, a label or a row is not as described.
    """

    store: ImageStore
    labels: Tensor
    clean: Tensor | None = None
    trusted: Tensor | None = None
    image_format: ImageFormat = field(kw_only=True)
    rows: Tensor | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if self.rows is not None and self.rows.dtype != torch.int64:
            raise ValueError(f"The rows of images must be int64, got {self.rows.dtype}.")
        check_labels("Labels", self.labels, len(self))
        if self.clean is not None:
            check_labels("Clean labels", self.clean, len(self))
        check_trusted(self.trusted, self.clean, len(self))

    def __len__(self) -> int:
        return len(self.store) if self.rows is None else len(self.rows)

    def fetch(self, rows: Tensor) -> Tensor:
        """``(B,)`` int64 rows → ``(B, K, H, W)`` uint8 images, in channels-last memory.

        Raises:
            FileNotFoundError: an image does not exist.
            ValueError: an image cannot be read or decoded.
        """
        channels, height, width = self.image_format.shape
        batch = np.empty((len(rows), height, width, channels), dtype=np.uint8)
        for pixels, row in zip(batch, rows.tolist(), strict=True):
            try:
                pixels[:] = self.decode(row).pixels
            except ImageError as error:
                raise unusable(self.name(row), error) from error
        return torch.from_numpy(batch).permute(0, 3, 1, 2)

    def decode(self, row: int) -> Decoded:
        """One image with what its file says of it.

        Raises:
            ImageError: the image cannot be read or decoded; gives the reason, not the name.
        """
        try:
            content = self.content(row)
        except FileNotFoundError as error:
            raise ImageError("it does not exist") from error
        except OSError as error:
            raise ReadError(f"it cannot be read ({error.strerror or error})") from error
        return decode(content, self.image_format)

    def inspect(self, row: int) -> Inspection:
        """Decode an image only to see whether and what it is."""
        try:
            return Inspection.of(self.decode(row))
        except ImageError as error:
            return Inspection(problem=str(error))

    def select(self, rows: Tensor) -> EncodedImages:
        """The ``(n,)`` int64 rows as a set of their own; the files are shared."""
        return replace(
            self,
            labels=self.labels[rows],
            clean=None if self.clean is None else self.clean[rows],
            trusted=None if self.trusted is None else self.trusted[rows],
            rows=rows if self.rows is None else self.rows[rows],
        )

    def name(self, row: int) -> str:
        """The store's name of the image."""
        return self.store.name(self.store_row(row))

    def content(self, row: int) -> bytes:
        """The encoded file."""
        return self.store.read(self.store_row(row))

    def size(self, row: int) -> int | None:
        """Bytes of the encoded file, if the store knows them without reading it."""
        return self.store.size(self.store_row(row)) if isinstance(self.store, Sized) else None

    def store_row(self, row: int) -> int:
        """Where in the store an image lies."""
        return row if self.rows is None else int(self.rows[row])


def unusable(name: str, error: ImageError) -> ValueError | FileNotFoundError:
    """The sentence for whoever needs this image."""
    missing = isinstance(error.__cause__, FileNotFoundError)
    return (FileNotFoundError if missing else ValueError)(
        f"The image {name} cannot be used, because {error}: mend it, take it out of the data set, "
        "or set on_bad_image=skip."
    )
