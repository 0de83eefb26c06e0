"""Decoded images in one file that is mapped into memory, so that no epoch decodes them again."""

from __future__ import annotations

import errno
import hashlib
import math
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import PIL
import torch
from torch import Tensor

from mln_lightning.data.decode import ImageError
from mln_lightning.data.encoded import EncodedImages, Inspection, unusable
from mln_lightning.data.pixel_file import PixelFile, write_pixels
from mln_lightning.files import shown

try:
    import fcntl
except ImportError:  # Windows: two processes may build the same cache, each for itself
    fcntl = None  # type: ignore[assignment]

_VERSION = 1  # of the files' layout and of how images are decoded


@dataclass(frozen=True, eq=False)
class CachedImages:
    """Encoded images whose pixels come from a cache.

    Attributes:
        images: N labelled images; asked for names, labels and content.
        file: their pixels.
        rows: ``(N,)`` int64 row of each image in ``file``.
    """

    images: EncodedImages
    file: PixelFile
    rows: Tensor

    @property
    def labels(self) -> Tensor:
        """``(N,)`` int64, see `LabeledImages.labels`."""
        return self.images.labels

    @property
    def clean(self) -> Tensor | None:
        """``(N,)`` int64, see `LabeledImages.clean`."""
        return self.images.clean

    @property
    def trusted(self) -> Tensor | None:
        """``(N,)`` bool, see `LabeledImages.trusted`."""
        return self.images.trusted

    def __len__(self) -> int:
        return len(self.rows)

    def fetch(self, rows: Tensor) -> Tensor:
        """``(B,)`` int64 rows → ``(B, K, H, W)`` uint8 images, in channels-last memory.

        Raises:
            ValueError: an image could not be decoded, or the cache was damaged since.
        """
        channels, height, width = self.images.image_format.shape
        batch = np.empty((len(rows), height, width, channels), dtype=np.uint8)
        for pixels, row in zip(batch, rows.tolist(), strict=True):
            try:
                pixels[:] = self.file.read(int(self.rows[row]))
            except ImageError as error:
                raise unusable(self.name(row), error) from None
        return torch.from_numpy(batch).permute(0, 3, 1, 2)

    def inspect(self, row: int) -> Inspection:
        """What was seen when the cache was built."""
        return self.file.inspect(int(self.rows[row]))

    def select(self, rows: Tensor) -> CachedImages:
        """The ``(n,)`` int64 rows as a set of their own; the cache is shared."""
        return CachedImages(self.images.select(rows), self.file, self.rows[rows])

    def name(self, row: int) -> str:
        """The store's name of the image."""
        return self.images.name(row)

    def content(self, row: int) -> bytes:
        """The encoded file."""
        return self.images.content(row)

    def size(self, row: int) -> int | None:
        """Bytes of the encoded file, if they are known without reading it."""
        return self.images.size(row)


@runtime_checkable
class Stamped(Protocol):
    """A store that can tell without reading an image whether it has changed."""

    def stamp(self, row: int) -> str:
        """Another text for another content."""
        ...


def cached(
    images: EncodedImages,
    folder: Path,
    *,
    workers: int = 0,
    progress: Callable[[int], None] | None = None,
) -> CachedImages:
    """Decode all images once, into a file in ``folder``; if it is there already, use it.

    The file belongs to these images in this order and this format: where an image has changed, a
    new one is built. Images that cannot be decoded are recorded with their reason, as a `scan`
    would. Of two processes that need the same cache, one builds it and the other waits. Old files
    are never removed; the whole folder may be, whenever no run uses it.

    Args:
        images: N images.
        folder: for this and other caches; made if need be.
        workers: threads that decode; 0 = the calling one.
        progress: told how many more images are done, in the calling thread.

    Raises:
        ValueError: the disk has too little room, the folder cannot be used, or ``workers`` is
            negative.
    """
    if workers < 0:
        raise ValueError(f"The number of threads must not be negative, got {workers}.")
    channels, height, width = images.image_format.shape
    shape = (len(images), height, width, channels)
    file = PixelFile(Path(folder) / f"images-{_key(images)}.npy")
    if not file.holds(shape):
        try:
            file.path.parent.mkdir(parents=True, exist_ok=True)
            with _alone(file.path.parent) as alone:
                if alone:
                    _remove_leftovers(file.path.parent)
                file = PixelFile(file.path)  # forget what was seen before the wait
                if not file.holds(shape):
                    _check_room(file.path.parent, shape)
                    write_pixels(images, file, workers, progress)
                    file = PixelFile(file.path)
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            raise ValueError(
                f"The image cache {shown(file.path)} could not be written "
                f"({error.strerror or error}): "
                + ("make room or choose" if full else "choose")
                + " another folder, or do without a cache."
            ) from error
    return CachedImages(images, file, torch.arange(len(images)))


def _key(images: EncodedImages) -> str:
    """Equal for equal images in equal order, format and decoder."""
    digest = hashlib.sha256(f"{_VERSION} {PIL.__version__} {images.image_format!r}".encode())
    store = images.store
    stamped = store if isinstance(store, Stamped) else None
    for row in range(len(images)):
        try:
            stamp = (
                hashlib.sha256(images.content(row)).hexdigest()
                if stamped is None
                else stamped.stamp(images.store_row(row))
            )
        except OSError as error:
            stamp = str(error.errno)
        # The lengths keep two texts from running into each other.
        for text in (images.name(row), stamp):
            data = text.encode("utf-8", "surrogateescape")
            digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:32]


@contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Wait until no other process builds in ``folder``; False if there is no telling.

    The kernel gives the lock back when its holder ends, however it ends.
    """
    if fcntl is None:
        yield False
        return
    with (folder / "lock").open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:  # a file system without locks
            yield False
        else:
            yield True


def _remove_leftovers(folder: Path) -> None:
    """Temporary files of builders that were killed; nobody else builds here now."""
    for leftover in folder.glob(".images-*.np[yz].*.tmp"):
        with suppress(OSError):
            leftover.unlink()


def _check_room(folder: Path, shape: tuple[int, ...]) -> None:
    needed, free = math.prod(shape), shutil.disk_usage(folder).free
    if needed > free:
        raise ValueError(
            f"The image cache needs {needed / 1e9:.1f} GB in {shown(folder)}, where "
            f"{free / 1e9:.1f} GB are free: make room, choose another folder or smaller images, "
            "or do without a cache."
        )
