"""Tiny data sets in the published file formats."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image


def picture(path: Path, grey: int) -> None:
    """A JPEG of one grey value, wider than high."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((10, 16, 3), grey, dtype=np.uint8)).save(path, format="JPEG")


def lines(path: Path, content: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in content))
