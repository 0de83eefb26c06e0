"""Own images in an .npz file."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mln_lightning.data import ImageArrays
from mln_lightning.datasets import arrays
from mln_lightning.listing.arrays import list_arrays
from mln_lightning.listing.layout import image_shape


def content(**changes: Any) -> dict[str, Any]:
    """Six RGB images of 6 × 5 pixels in three classes; None leaves an array out."""
    images = np.random.default_rng(0).integers(0, 256, (6, 6, 5, 3), dtype=np.uint8)
    labels = np.array([0, 1, 2, 0, 1, -1])
    given = {"images": images, "labels": labels} | changes
    return {name: value for name, value in given.items() if value is not None}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "data.npz"


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_what_is_in_the_file(file: Path, save: Any) -> None:
    clean = np.array([0, -1, 1, -1, -1, 2], dtype=np.int16)
    parts = content(
        clean_labels=clean,
        val_images=np.zeros((2, 6, 5, 3), np.uint8),
        val_labels=np.array([1, 1]),
        meta_images=np.ones((3, 6, 5, 3), np.uint8),
        meta_labels=np.arange(3, dtype=np.uint8),
        test_images=np.full((1, 6, 5, 3), 2, np.uint8),
        test_labels=np.array([2]),
    )
    save(file, **parts)
    splits = arrays(file)
    train = splits.train
    assert isinstance(train, ImageArrays)
    assert train.images.equal(torch.from_numpy(parts["images"]).permute(0, 3, 1, 2))
    assert train.labels.tolist() == [0, 1, 2, 0, 1, -1]
    assert train.clean is not None
    assert train.trusted is not None
    assert train.clean.tolist() == clean.tolist()
    assert train.trusted.tolist() == [True, False, True, False, False, True]
    for part, value, labels in (
        (splits.val, 0, [1, 1]),
        (splits.meta, 1, [0, 1, 2]),
        (splits.test, 2, [2]),
    ):
        assert isinstance(part, ImageArrays)
        assert part.labels.tolist() == labels
        assert bool((part.images == value).all())
        assert part.images.shape[1:] == (3, 6, 5)


def test_who_is_clean(file: Path) -> None:
    sure = np.array([1, 0, 1, 0, 0, 0], dtype=bool)
    np.savez(file, **content(is_clean=sure))
    train = arrays(file).train
    assert train.clean is not None
    assert train.trusted is not None
    assert train.clean.tolist() == [0, -1, 2, -1, -1, -1]
    assert train.trusted.tolist() == sure.tolist()
    np.savez(file, **content())
    assert (arrays(file).train.clean, arrays(file).train.trusted) == (None, None)
    wrong = np.array([1, 1, 2, 0, 1, 0])
    np.savez(file, **content(is_clean=sure, clean_labels=wrong))
    with pytest.raises(ValueError, match="row 0: is_clean says that the label is right, but"):
        arrays(file)


def test_the_description_reads_no_image(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(file, **content(class_names=np.array(["a", "b", "größer", "never"])))
    read: list[str] = []
    getitem = np.lib.npyio.NpzFile.__getitem__
    monkeypatch.setattr(
        np.lib.npyio.NpzFile, "__getitem__", lambda self, k: [read.append(k), getitem(self, k)][1]
    )
    found = list_arrays(file)
    assert sorted(set(read)) == ["class_names", "labels"]
    assert found.classes.names == ("a", "b", "größer", "never")
    assert found.shape == (3, 6, 5)
    assert (found.mean, found.std) == ((0.5,) * 3, (0.25,) * 3)
    assert len(found.labels["train"]) == 6
    np.savez(file, **content(mean=np.array([0.1, 0.2, 0.3]), std=np.ones(3, np.float32)))
    found = list_arrays(file)
    assert (found.mean, found.std) == ((0.1, 0.2, 0.3), (1.0, 1.0, 1.0))
    assert found.classes.names == ("0", "1", "2")


@given(st.lists(st.integers(1, 6), min_size=3, max_size=4))
def test_described_as_read(shape: list[int]) -> None:
    images = ImageArrays.from_numpy(np.zeros(shape, np.uint8), np.zeros(shape[0], np.int64))
    assert image_shape(shape) == images.images.shape[1:]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"labels": None, "label": np.zeros(6, int)}, ["no array 'labels'", "mean 'label'"]),
        ({"images": None}, ["no array 'images'", "it has labels"]),
        ({"val_images": np.zeros((1, 6, 5, 3), np.uint8)}, ["has val_images, but not both"]),
        ({"clean_label": np.zeros(6, int)}, ["'clean_label', which is not read", "clean_labels"]),
        ({"images": np.zeros((6, 6, 5, 3))}, ["images", "must be uint8", "float64"]),
        ({"images": np.zeros((6, 4), np.uint8)}, ["(N, H, W)", "(6, 4)"]),
        ({"labels": np.zeros(6)}, ["labels", "whole numbers", "float64"]),
        ({"labels": np.zeros((6, 1), int)}, ["whole numbers of shape (N,)", "(6, 1)"]),
        ({"labels": np.array([0, 1, 2])}, ["6 images and 3 labels"]),
        ({"labels": np.array([1, 2, 3] * 2)}, ["no image has 0: number the classes from 0"]),
        ({"labels": np.array([0, 1, -2] * 2)}, ["from 0 up, or -1 for none, got -2"]),
        ({"labels": np.zeros(6, int)}, ["at least 2 classes, found 0"]),
        ({"class_names": np.array(["a", "b"])}, ["Row 2 of labels", "is 2", "0 to 1"]),
        ({"class_names": np.array([1, 2, 3])}, ["class_names", "texts", "int64"]),
        ({"clean_labels": np.array([0, 1, 2, 3, 0, 0])}, ["Row 3 of clean_labels", "0 to 2"]),
        ({"clean_labels": np.array([0, 1])}, ["6 labels and 2 clean_labels"]),
        ({"is_clean": np.array([2] * 6)}, ["is_clean", "true or false"]),
        ({"is_clean": np.array([True])}, ["6 labels and 1 is_clean"]),
        (
            {"test_images": np.zeros((2, 6, 5, 3), np.uint8), "test_labels": np.array([0, 3])},
            ["Row 1 of test_labels", "is 3"],
        ),
        (
            {"meta_images": np.zeros((2, 6, 5, 3), np.uint8), "meta_labels": np.array([-1, 0])},
            ["Row 0 of meta_labels", "has no label"],
        ),
        ({"mean": np.array([0.5])}, ["mean", "3 numbers", "(1,)"]),
    ],
)
def test_arrays_that_do_not_fit(file: Path, changes: dict[str, Any], words: list[str]) -> None:
    np.savez(file, **content(**changes))
    with pytest.raises(ValueError, match=r".") as error:
        arrays(file)
    text = str(error.value)
    assert [word for word in words if word not in text] == [], text
    assert str(file) in text or "at least 2" in text


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("harm",)


@pytest.mark.parametrize("key", ["images", "labels"])
def test_pickles_are_not_read(file: Path, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.chdir(file.parent)
    np.savez(file, **content(**{key: np.array([Harmful()] * 6, dtype=object)}))
    with pytest.raises(ValueError, match=f"{key} in .*data.npz"):
        arrays(file)
    file.write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(ValueError, match=r"data.npz is no .npz file; write one with numpy.savez"):
        arrays(file)
    assert not (file.parent / "harm").exists()


def test_files_of_other_kinds(file: Path) -> None:
    for bad in (b"", b"text", b"PK\x03\x04 broken"):
        file.write_bytes(bad)
        with pytest.raises(ValueError, match=r"is no .npz file"):
            arrays(file)
    with file.open("wb") as stream:
        np.save(stream, np.zeros(3))
    with pytest.raises(ValueError, match=r"is no .npz file"):
        arrays(file)
    np.savez(file, **content())
    with zipfile.ZipFile(file) as archive:
        place = archive.getinfo("labels.npy").header_offset
    damaged = bytearray(file.read_bytes())
    damaged[place + 180] ^= 1
    file.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"labels in .* cannot be read"):
        arrays(file)
    with pytest.raises(FileNotFoundError, match=r"correct dataset.source.file"):
        arrays(file.with_name("none.npz"))
