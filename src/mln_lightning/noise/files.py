"""Numbers in files: ``.npy``, ``.npz`` and text, read without ever running code from them."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np

_DAMAGE = (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile)


def existing(path: str | os.PathLike[str] | None, *, what: str, key: str) -> Path:
    """The path, if there is such a file.

    Args:
        path: as the user gave it.
        what: what a message calls its content, such as "transition matrix".
        key: the setting that names the file.

    Raises:
        ValueError: no file was named.
        FileNotFoundError: there is no such file.
    """
    if path is None:
        raise ValueError(f"Say which file holds the {what}: {key}=<file>.")
    if not Path(path).is_file():
        raise FileNotFoundError(f"The file of the {what} does not exist: {path}; correct {key}.")
    return Path(path)


def read_array(path: Path, *, what: str) -> np.ndarray:
    """One array of numbers from ``.npy``, or a table from ``.csv`` (commas) or ``.txt`` (blanks).

    Args:
        path: an existing file.
        what: what a message calls its content.

    Raises:
        ValueError: another kind of file, or its content is damaged or is not numbers.
    """
    kind = path.suffix.lower()
    if kind not in (".npy", ".csv", ".txt"):
        raise ValueError(f"The file of the {what} must be .npy, .csv or .txt, got {path}.")
    try:
        if kind == ".npy":
            with path.open("rb") as file:
                array = np.lib.format.read_array(file, allow_pickle=False)
        else:
            text = path.read_text(encoding="utf-8-sig")
            if not text.strip():
                raise ValueError("it is empty")
            array = np.loadtxt(
                text.splitlines(), delimiter="," if kind == ".csv" else None, ndmin=2
            )
    except _DAMAGE as error:
        raise ValueError(f"The file of the {what} cannot be read: {path}: {error}.") from error
    if array.dtype.kind not in "iuf":
        raise ValueError(f"The file of the {what} must hold numbers: {path} holds {array.dtype}.")
    return array


def read_arrays(path: Path, *, what: str) -> dict[str, np.ndarray]:
    """All arrays of an ``.npz`` file by name.

    Args:
        path: an existing file.
        what: what a message calls its content.

    Raises:
        ValueError: the file is damaged, is no ``.npz`` file or holds pickled objects.
    """
    try:
        with path.open("rb") as handle, np.load(handle, allow_pickle=False) as file:
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise ValueError("it is a single array")
            return {name: file[name] for name in file.files}
    except _DAMAGE as error:
        raise ValueError(
            f"The file of the {what} cannot be read as .npz: {path}: {error}."
        ) from error
