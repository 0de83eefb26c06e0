"""A user's own images, a few and tiny: in folders, in a table, in arrays."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

CLASSES = ("grün", "rot", "tiefes blau")
COLOURS = ((40, 160, 60), (190, 40, 40), (30, 50, 170))


def pixels(label: int, seed: int, size: tuple[int, int] = (40, 50)) -> NDArray[np.uint8]:
    """``(H, W, 3)`` pixels around the colour of a class."""
    noise = np.random.default_rng(seed).normal(0, 25, (*size, 3))
    return (np.array(COLOURS[label]) + noise).clip(0, 255).astype(np.uint8)


def picture(path: Path, label: int = 0, seed: int = 0, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(label, seed)).convert(mode).save(path)


def table(path: Path, rows: Iterable[Mapping[str, object]]) -> Path:
    """A CSV file; the first row has all columns."""
    rows = list(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def folder(root: Path, each: int = 20) -> Path:
    """One folder per class; a few images of unusual kinds."""
    for label, name in enumerate(CLASSES):
        for i in range(each):
            mode = {0: "L", 1: "CMYK"}.get(i, "RGB")
            picture(root / name / f"Bild {i}.jpg", label, seed=1000 * label + i, mode=mode)
    return root


def arrays(path: Path, each: int = 20) -> Path:
    """The same in an .npz file, the first six of each class trusted."""
    labels = np.repeat(np.arange(len(CLASSES)), each)
    images = [pixels(label, seed, (8, 8)) for seed, label in enumerate(labels)]
    clean = np.where(np.arange(len(labels)) % each < 6, labels, -1)
    np.savez(path, images=np.stack(images), labels=labels, clean_labels=clean)
    return path


def choices(where: Path) -> dict[str, list[str]]:
    """The overrides that make ``dataset=folder``, ``table`` and ``arrays`` complete."""
    root = folder(where / "fotos", each=2)
    rows = [{"path": str(p), "label": p.parent.name} for p in sorted(root.rglob("*.jpg"))]
    return {
        "folder": [f"dataset.source.folder={root}"],
        "table": [f"dataset.source.table={table(where / 'list.csv', rows)}"],
        "arrays": [f"dataset.source.file={arrays(where / 'own.npz')}"],
    }
