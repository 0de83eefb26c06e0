"""Images that stay encoded, as files on disk or inside other files, until they are fetched."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from mln_lightning.data.decode import Decoded, ImageError, decode
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
        if self.rows is None:
            object.__setattr__(self, "rows", torch.arange(len(self.store)))
        check_labels("Labels", self.labels, len(self))
        if self.clean is not None:
            check_labels("Clean labels", self.clean, len(self))
        check_trusted(self.trusted, self.clean, len(self))

    def __len__(self) -> int:
        assert self.rows is not None
        return len(self.rows)

    def fetch(self, rows: Tensor) -> Tensor:
        """``(B,)`` int64 rows → ``(B, K, H, W)`` uint8 images, in channels-last memory.

        Raises:
            FileNotFoundError: an image does not exist.
            ValueError: an image cannot be read or decoded.
        """
        channels, height, width = self.image_format.shape
        batch = np.empty((len(rows), height, width, channels), dtype=np.uint8)
        for pixels, row in zip(batch, rows.tolist(), strict=True):
            pixels[:] = self.decode(row).pixels
        return torch.from_numpy(batch).permute(0, 3, 1, 2)

    def decode(self, row: int) -> Decoded:
        """One image with what its file says of it.

        Raises:
            FileNotFoundError: the image does not exist.
            ValueError: the image cannot be read or decoded.
        """
        try:
            return decode(self.content(row), self.image_format)
        except FileNotFoundError:
            raise FileNotFoundError(
                f"The image {self.name(row)} does not exist: put it there, take it off the list, "
                "or set on_bad_image=skip."
            ) from None
        except (OSError, ImageError) as error:
            reason = f"it cannot be read ({error})" if isinstance(error, OSError) else error
            raise ValueError(
                f"The image {self.name(row)} cannot be used, because {reason}: mend or remove it, "
                "or set on_bad_image=skip."
            ) from error

    def select(self, rows: Tensor) -> EncodedImages:
        """The ``(n,)`` int64 rows as a set of their own; the files are shared."""
        assert self.rows is not None
        return replace(
            self,
            labels=self.labels[rows],
            clean=None if self.clean is None else self.clean[rows],
            trusted=None if self.trusted is None else self.trusted[rows],
            rows=self.rows[rows],
        )

    def name(self, row: int) -> str:
        """The store's name of the image."""
        return self.store.name(self._at(row))

    def content(self, row: int) -> bytes:
        """The encoded file."""
        return self.store.read(self._at(row))

    def _at(self, row: int) -> int:
        assert self.rows is not None
        return int(self.rows[row])
