"""Image files below a folder."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

# The raster formats that are decoded, under the names they usually go by.
_SUFFIXES = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib"),
        *(".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".avifs", ".jp2", ".j2k"),
        *(".jpc", ".jpf", ".jpx", ".j2c", ".mpo", ".tga", ".icb", ".vda", ".vst", ".ico", ".pcx"),
        *(".sgi", ".rgb", ".rgba", ".bw"),
    }
)


@dataclass(frozen=True)
class Tree:
    """What lies below a folder; hidden files and folders are as good as not there.

    Attributes:
        images: paths relative to the folder, in order of code points.
        others: suffix → files that are not images by their name.
    """

    images: list[str] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)


def tree(folder: Path, *, deep: bool = True) -> Tree:
    """Look for image files in a folder; they are known by their names and not opened.

    Args:
        folder: an existing folder.
        deep: whether to look into its sub-folders, those behind links too.

    Raises:
        OSError: a folder cannot be read.
    """
    found = Tree()
    _collect(str(folder), "", found, deep, ())
    found.images.sort()
    return found


def subfolders(folder: Path) -> list[str]:
    """Names of the folders in a folder that are not hidden, in order of code points.

    Raises:
        OSError: the folder cannot be read.
    """
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))


def require_folder(path: str | os.PathLike[str], key: str) -> Path:
    """The path of an existing folder, `~` replaced by the home folder.

    Args:
        path: as given.
        key: what the path was given as, such as ``dataset.source.folder``.

    Raises:
        FileNotFoundError: there is nothing.
        ValueError: there is a file.
    """
    folder = existing(path, key)
    if not folder.is_dir():
        raise ValueError(
            f"{key}={path} is a file, not a folder; a table is read with dataset=table, an .npz "
            "file with dataset=arrays, and an archive must be unpacked first."
        )
    return folder


def require_file(path: str | os.PathLike[str], key: str) -> Path:
    """The path of an existing file, `~` replaced by the home folder.

    Args:
        path: as given.
        key: what the path was given as, such as ``dataset.source.table``.

    Raises:
        FileNotFoundError: there is nothing.
        ValueError: there is a folder.
    """
    file = existing(path, key)
    if file.is_dir():
        raise ValueError(f"{key}={path} is a folder, not a file; give the file's own path.")
    return file


def existing(path: str | os.PathLike[str], key: str) -> Path:
    """The path, `~` replaced by the home folder.

    Raises:
        FileNotFoundError: there is nothing.
    """
    found = Path(path).expanduser()
    if not found.exists():
        looked = "" if found.is_absolute() else f" in {Path.cwd()}"
        raise FileNotFoundError(f"There is no file or folder {str(path)!r}{looked}; correct {key}.")
    return found


def _collect(
    folder: str, prefix: str, found: Tree, deep: bool, above: tuple[tuple[int, int], ...]
) -> None:
    status = os.stat(folder)
    here = (status.st_dev, status.st_ino)
    if here in above:  # a link back to a folder that we are in
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                if deep:
                    _collect(entry.path, f"{prefix}{entry.name}/", found, deep, (*above, here))
                continue
            suffix = os.path.splitext(entry.name)[1].lower()
            if suffix in _SUFFIXES:
                found.images.append(prefix + entry.name)
            else:
                found.others[suffix] += 1
