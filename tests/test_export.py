"""`labels.csv` for people: class names, paths of files, empty where there was no label."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from mln_lightning.batch import UNKNOWN
from mln_lightning.data import (
    DatasetInfo,
    EncodedImages,
    ImageArrays,
    ImageFiles,
    ImageFormat,
    cached,
)
from mln_lightning.export import CorrectedLabels, write_labels

NAMES = ("cat", 'the "dog", a', "Vögel 鳥")
OBSERVED = torch.tensor([0, 2, UNKNOWN, 1])
CORRECTED = torch.tensor([0, 1, 2, 0])
ROWS = torch.tensor([1, 2, 4, 5])


def info(classes: tuple[str, ...] = NAMES) -> DatasetInfo:
    return DatasetInfo("things", 3, (1, 4, 4), (0.5,), (0.5,), classes=classes)


def labels(clean: Tensor | None = None) -> CorrectedLabels:
    probabilities = torch.full((4, 3), 0.1).scatter(1, CORRECTED[:, None], 0.8)
    return CorrectedLabels(
        index=ROWS,
        observed=OBSERVED,
        clean=torch.full((4,), UNKNOWN) if clean is None else clean,
        soft_labels=torch.full((4, 3), 1 / 3),
        probabilities=probabilities,
    )


def arrays() -> ImageArrays:
    return ImageArrays(torch.zeros(6, 1, 4, 4, dtype=torch.uint8), torch.zeros(6).long())


def table(folder: Path) -> list[dict[str, str]]:
    text = (folder / "labels.csv").read_bytes().decode("utf-8", "surrogateescape")
    return list(csv.DictReader(io.StringIO(text)))


def test_classes_are_named_and_unlabelled_is_empty(tmp_path: Path) -> None:
    write_labels(tmp_path, labels(), arrays(), info())
    rows = table(tmp_path)
    assert list(rows[0]) == [
        *("sample", "observed_label", "corrected_label", "confidence", "changed"),
    ]
    assert [row["sample"] for row in rows] == ["1", "2", "4", "5"]
    assert [row["observed_label"] for row in rows] == [NAMES[0], NAMES[2], "", NAMES[1]]
    assert [row["corrected_label"] for row in rows] == [NAMES[n] for n in CORRECTED]
    assert [row["changed"] for row in rows] == ["0", "1", "1", "1"]
    assert [row["confidence"] for row in rows] == ["0.8000"] * 4


def test_classes_without_names_are_numbered(tmp_path: Path) -> None:
    write_labels(tmp_path, labels(), arrays(), info(()))
    assert [row["observed_label"] for row in table(tmp_path)] == ["0", "2", "", "1"]
    assert [row["corrected_label"] for row in table(tmp_path)] == ["0", "1", "2", "0"]


def files(folder: Path) -> EncodedImages:
    """Six image files, one with a name that is no proper UTF-8."""
    paths = ["a/1.png", "a/ein Bild.png", "b/鳥.png", "b/4.png", "b/5,6.png", "b/\udcff.png"]
    for number, path in enumerate(paths):
        (folder / path).parent.mkdir(exist_ok=True)
        with Path(os.fsdecode(os.fsencode(folder / path))).open("wb") as file:
            Image.new("L", (4, 4), number).save(file, "PNG")
    store = ImageFiles(folder, paths)
    return EncodedImages(store, torch.zeros(6).long(), image_format=ImageFormat(4, channels=1))


@pytest.mark.parametrize("with_cache", [False, True])
def test_images_that_are_files_have_their_path(tmp_path: Path, with_cache: bool) -> None:
    images = files(tmp_path)
    chosen = cached(images, tmp_path / "cache") if with_cache else images
    write_labels(tmp_path, labels(), chosen, info())
    rows = table(tmp_path)
    assert list(rows[0])[:2] == ["sample", "path"]
    assert [row["path"] for row in rows] == [
        *("a/ein Bild.png", "b/鳥.png", "b/5,6.png", "b/\udcff.png"),
    ]
    for row in rows:
        with Image.open(tmp_path / row["path"]) as picture:
            assert picture.getpixel((0, 0)) == int(row["sample"])


def test_paths_are_those_of_the_rows_of_a_selection(tmp_path: Path) -> None:
    write_labels(
        tmp_path, labels(), files(tmp_path).select(torch.tensor([5, 4, 3, 2, 1, 0])), info()
    )
    assert [row["path"] for row in table(tmp_path)] == [
        *("b/5,6.png", "b/4.png", "a/ein Bild.png", "a/1.png"),
    ]


def test_counts_and_moved_labels_follow_from_the_same_numbers() -> None:
    known = labels(clean=torch.tensor([0, 1, 2, 1]))
    assert known.counts == {
        "changed": 1 + len(known.moved(9)),  # one had no label
        "accuracy_before": pytest.approx(2 / 3),
        "accuracy_after": pytest.approx(2 / 3),
        "recovered": 1,
        "damaged": 1,
    }
    assert [(label.row, label.truth) for label in known.moved(9)] == [(2, 1), (5, 1)]
