"""Decoded images in one file, with checksums and all that was seen of them."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from mln_lightning.data.decode import ImageError, ReadError
from mln_lightning.data.encoded import EncodedImages, Inspection
from mln_lightning.data.scan import chunks, in_order
from mln_lightning.files import replacing, shown


@dataclass(frozen=True)
class PixelFile:
    """N decoded images and what was seen of each while it was decoded.

    Two files: ``path`` is a NumPy file, ``(N, H, W, K)`` uint8; beside it ``.npz`` holds a
    checksum and an `Inspection` for each image. It exists only if both are complete.

    Attributes:
        path: the file of pixels.
    """

    path: Path

    @property
    def index_path(self) -> Path:
        """Where the checksums lie."""
        return self.path.with_suffix(".npz")

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}  # a pickled memory map would carry all its pixels

    @cached_property
    def index(self) -> dict[str, NDArray[Any]]:
        """Of each image: crc (uint32), width, height, mode; of the bad ones: bad (row), reason."""
        with self.index_path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)

    @cached_property
    def pixels(self) -> NDArray[np.uint8]:
        """``(N, H, W, K)``, read when looked at."""
        return cast("NDArray[np.uint8]", np.load(self.path, mmap_mode="r"))

    @cached_property
    def problems(self) -> dict[int, str]:
        """Row → why the image could not be decoded."""
        return dict(zip(self.index["bad"].tolist(), self.index["reason"].tolist(), strict=True))

    def holds(self, shape: tuple[int, ...]) -> bool:
        """Whether both files are there and complete."""
        try:
            return (
                self.pixels.shape == shape
                and self.pixels.dtype == np.uint8
                and len(self.index["crc"]) == shape[0]
            )
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
            return False

    def read(self, row: int) -> NDArray[np.uint8]:
        """``(H, W, K)`` pixels of an image.

        Raises:
            ImageError: the image could not be decoded when the cache was built.
            ValueError: the file was damaged since.
        """
        if row in self.problems:
            raise ImageError(self.problems[row])
        pixels: NDArray[np.uint8] = self.pixels[row]
        if zlib.crc32(pixels.data) != int(self.index["crc"][row]):
            raise ValueError(
                f"The image cache {shown(self.path)} is damaged at row {row}: delete this file, "
                "and it is built anew."
            )
        return pixels

    def inspect(self, row: int) -> Inspection:
        """What was seen when the cache was built."""
        width, height, mode = (self.index[key][row] for key in ("width", "height", "mode"))
        return Inspection(int(width), int(height), str(mode), self.problems.get(row, ""))


def write_pixels(
    images: EncodedImages,
    file: PixelFile,
    workers: int,
    progress: Callable[[int], None] | None,
) -> None:
    """Decode all images and write both files; they appear complete or not at all.

    Args:
        images: N images.
        file: where to.
        workers: threads that decode; 0 = the calling one.
        progress: told how many more images are done, or None.

    Raises:
        OSError: the files cannot be written.
        ValueError: an image cannot be read, as opposed to decoded.
    """
    channels, height, width = images.image_format.shape
    shape = (len(images), height, width, channels)

    def decode(rows: range) -> list[tuple[NDArray[np.uint8], int, Inspection]]:
        done = []
        for row in rows:
            try:
                image = images.decode(row)
                pixels, seen = np.ascontiguousarray(image.pixels), Inspection.of(image)
            except ReadError as error:  # not to be remembered for good
                raise ValueError(
                    f"The image cache cannot be built, because of {images.name(row)}: {error}; "
                    "mend it or take it out of the data set."
                ) from error
            except ImageError as error:
                pixels, seen = np.zeros(shape[1:], np.uint8), Inspection(problem=str(error))
            done.append((pixels, zlib.crc32(pixels.data), seen))
        return done

    checksums: list[int] = []
    seen: list[Inspection] = []
    # The pixels are written, not mapped: a full disk is an error then, and not a crash.
    with replacing(file.path) as temporary, temporary.open("wb") as out:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(out, header)
        for chunk in in_order(decode, chunks(images), workers):
            for pixels, checksum, inspection in chunk:
                out.write(pixels.data)
                checksums.append(checksum)
                seen.append(inspection)
            if progress is not None:
                progress(len(chunk))
        out.flush()
        os.fsync(out.fileno())  # the disk may lose power
        # The pixels get their name last, when all that belongs to them is there.
        with replacing(file.index_path) as index, index.open("wb") as out_index:
            bad = [row for row, inspection in enumerate(seen) if inspection.problem]
            np.savez(
                out_index,
                crc=np.array(checksums, dtype=np.uint32),
                width=np.array([one.width for one in seen], dtype=np.int64),
                height=np.array([one.height for one in seen], dtype=np.int64),
                mode=np.array([one.mode for one in seen], dtype=np.str_),
                bad=np.array(bad, dtype=np.int64),
                reason=np.array([seen[row].problem for row in bad], dtype=np.str_),
            )
