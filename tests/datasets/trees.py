"""Tiny data sets in the published file formats."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from mln_lightning.check import report, single_job


def picture(path: Path, grey: int) -> None:
    """A JPEG of one grey value, wider than high."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((10, 16, 3), grey, dtype=np.uint8)).save(path, format="JPEG")


def lines(path: Path, content: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in content))


def ready(*overrides: str) -> None:
    """The check of a data set, as its command makes it, finds nothing to mend."""
    small = ("model/network=small_cnn", "dataset.num_workers=0")
    assert report(single_job([*small, *overrides], None)) == []
