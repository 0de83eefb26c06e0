"""Checks of data set files, with errors that say what to do."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

_NAMED = 10  # missing files that a sentence lists before it says "and n more"


def fetch(reader: Callable[..., object], data_dir: str | os.PathLike[str], *, name: str) -> None:
    """Fetch a data set through torchvision.

    Args:
        reader: torchvision's class.
        data_dir: folder that will hold the data set's own folder.
        name: the data set.

    Raises:
        FileNotFoundError: the download failed.
    """
    try:
        reader(str(data_dir), download=True)
    except (OSError, RuntimeError) as error:
        raise FileNotFoundError(
            f"{name} could not be downloaded to {data_dir}: {error}. "
            "Check the network and the folder, or put the published files there."
        ) from error


def require_files(*paths: Path, name: str, advice: str) -> None:
    """Stop if files are missing, and name them.

    Args:
        paths: the files.
        name: the data set.
        advice: how to get them, a sentence without full stop.

    Raises:
        FileNotFoundError: at least one is missing.
    """
    _stop_if_missing([path for path in paths if not path.is_file()], name, advice)


def require_folders(*paths: Path, name: str, advice: str) -> None:
    """Stop if folders are missing, and name them.

    Args:
        paths: the folders.
        name: the data set.
        advice: how to get them, a sentence without full stop.

    Raises:
        FileNotFoundError: at least one is missing.
    """
    _stop_if_missing([path for path in paths if not path.is_dir()], name, advice)


def _stop_if_missing(missing: list[Path], name: str, advice: str) -> None:
    if not missing:
        return
    listed = [str(path) for path in missing[:_NAMED]]
    if len(missing) > _NAMED:
        listed.append(f"{len(missing) - _NAMED} more")
    named = " and ".join(filter(None, [", ".join(listed[:-1]), listed[-1]]))
    verb = "is" if len(missing) == 1 else "are"
    raise FileNotFoundError(f"{name} is not complete: {named} {verb} missing. {advice}.")


def check_md5(path: Path, expected: str, *, name: str, advice: str) -> None:
    """Stop if a file is not the published one.

    Args:
        path: the file, which exists.
        expected: published MD5 sum, 32 hexadecimal digits.
        name: the data set.
        advice: what to do otherwise, a sentence without full stop.

    Raises:
        ValueError: the sum differs.
    """
    with path.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != expected:
        raise ValueError(
            f"{name} is damaged: {path} has the MD5 sum {found} ({path.stat().st_size} bytes), "
            f"expected {expected}. {advice}."
        )
