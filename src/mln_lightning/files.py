"""Files that appear complete or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` to write to; move it there if all went well.

    A process killed at any moment leaves the old file, or none, but never half of the new one.

    Args:
        path: final place; its folder must exist.

    Raises:
        OSError: the file could not be written or moved; names ``path``.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        if error.errno is not None:
            error.filename = shown(path)  # a failed write names no file, or one nobody knows
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path, text: str) -> None:
    """Write UTF-8 ``text`` to ``path``; see `replacing`."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def shown(path: Path) -> str:
    """A path as short as the working folder allows."""
    with suppress(ValueError):
        return str(path.absolute().relative_to(Path.cwd()))
    return str(path)
