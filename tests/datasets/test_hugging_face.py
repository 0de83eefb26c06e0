"""Data sets of the Hugging Face library, made offline."""

from __future__ import annotations

import io
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image as Pillow

import own_images
from mln_lightning.data import ImageFormat, NoisyLabelDataModule, Splits
from mln_lightning.datasets import hugging_face, hugging_face_info

SMALL = ImageFormat(10)


@pytest.fixture(scope="module")
def hf() -> Any:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    return pytest.importorskip("datasets")


def encoded(label: int, seed: int) -> dict[str, Any]:
    stream = io.BytesIO()
    Pillow.fromarray(own_images.pixels(label, seed)).save(stream, "PNG")
    return {"bytes": stream.getvalue(), "path": None}


@pytest.fixture
def colours(hf: Any) -> Any:
    """Thirty images of three classes with three wrong labels; two of each class are trusted."""
    truth = [0, 1, 2] * 10
    labels = [1, 2, 0, *truth[3:]]
    features = hf.Features(
        {
            "image": hf.Image(),
            "label": hf.ClassLabel(names=list(own_images.CLASSES)),
            "truth": hf.ClassLabel(names=sorted(own_images.CLASSES, reverse=True)),
            "sure": hf.Value("bool"),
        }
    )
    rows = {
        "image": [encoded(true, seed) for seed, true in enumerate(truth)],
        "label": labels,
        "truth": [own_images.CLASSES[true] if i < 6 else None for i, true in enumerate(truth)],
        "sure": [None] * 5 + [False] + [True] * 4 + [None] * 20,
    }
    return hf.Dataset.from_dict(rows, features=features)


def test_images_and_labels(colours: Any) -> None:
    images = hugging_face(colours, image_format=SMALL)
    assert images.labels.tolist() == [1, 2, 0] + [0, 1, 2] * 9
    assert (images.clean, images.trusted) == (None, None)
    fetched = images.fetch(torch.tensor([29, 0]))
    assert fetched.shape == (2, 3, 10, 10)
    for image, true in zip(fetched, (2, 0), strict=True):
        colour = own_images.COLOURS[true]
        assert image.float().mean((1, 2)).tolist() == pytest.approx(colour, abs=9)
    assert images.content(3) == encoded(0, 3)["bytes"]
    assert images.name(3) == "row 3"
    again = pickle.loads(pickle.dumps(images))  # as worker processes get it
    assert torch.equal(again.fetch(torch.tensor([29, 0])), fetched)


def test_true_classes_are_matched_by_name(colours: Any) -> None:
    images = hugging_face(colours, clean_label="truth", image_format=SMALL)
    assert images.clean is not None
    assert images.trusted is not None
    assert images.clean.tolist() == [0, 1, 2] * 2 + [-1] * 24
    assert torch.equal(images.trusted, images.clean >= 0)
    images = hugging_face(colours, clean_label="truth", is_clean="sure", image_format=SMALL)
    assert images.clean is not None
    assert images.trusted is not None
    assert images.clean.tolist() == [0, 1, 2] * 2 + [0, 1, 2, 0] + [-1] * 20
    assert images.trusted.tolist() == [True] * 5 + [False] + [True] * 4 + [False] * 20


def test_in_the_data_module(colours: Any) -> None:
    info = hugging_face_info(colours, image_format=SMALL)
    assert info.classes == own_images.CLASSES
    assert (info.num_classes, info.shape) == (3, (3, 10, 10))
    train = hugging_face(colours, clean_label="truth", image_format=SMALL)
    test = hugging_face(colours.select(range(20, 30)), image_format=SMALL)
    data = NoisyLabelDataModule(lambda: Splits(train, test), info, batch_size=8)
    data.setup()
    assert (len(data.parts.meta), len(data.parts.train)) == (6, 24)
    batch = next(iter(data.train_dataloader()["train"]))
    assert batch.images.shape == (8, 3, 10, 10)


def test_labels_of_other_kinds(hf: Any, colours: Any) -> None:
    def with_labels(values: list[Any]) -> Any:
        rows = colours.select(range(len(values))).remove_columns(["label"])
        return rows.add_column("label", values)

    names = with_labels(["owl", None, "Ape", "owl"])
    assert hugging_face_info(names).classes == ("Ape", "owl")
    assert hugging_face(names).labels.tolist() == [1, -1, 0, 1]
    assert hugging_face(names, classes=["owl", "cat", "Ape"]).labels.tolist() == [0, -1, 2, 0]
    with pytest.raises(ValueError, match=r"'label' in row 2: 'Ape' is not among .* mean 'ape'"):
        hugging_face(names, classes=["owl", "ape"])
    numbers = with_labels([2, 0, None, -1])
    assert hugging_face_info(numbers).classes == ("0", "1", "2")
    assert hugging_face(numbers).labels.tolist() == [2, 0, -1, -1]
    with pytest.raises(ValueError, match=r"'label' in row 0 is 2; classes are 0 to 1"):
        hugging_face(numbers, classes=["a", "b"])
    tensors = with_labels([1, 0, 1]).with_format("torch")
    assert hugging_face(tensors).labels.tolist() == [1, 0, 1]


def test_images_in_files(hf: Any, tmp_path: Path) -> None:
    for name, label in (("a.png", 0), ("b.png", 1)):
        own_images.picture(tmp_path / name, label)
    paths = [str(tmp_path / name) for name in ("a.png", "b.png")]
    rows = hf.Dataset.from_dict({"image": paths, "label": ["x", "y"]})
    with pytest.raises(ValueError, match=r"holds no images .*cast_column") as error:
        hugging_face(rows)
    assert "'image'" in str(error.value)
    images = hugging_face(rows.cast_column("image", hf.Image()), image_format=SMALL)
    assert images.name(1) == paths[1]
    assert images.content(1) == (tmp_path / "b.png").read_bytes()
    (tmp_path / "b.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"b.png .*does not exist"):
        images.fetch(torch.tensor([1]))


def test_what_is_no_split_of_images(hf: Any, colours: Any) -> None:
    with pytest.raises(ValueError, match=r"got DatasetDict; choose one"):
        hugging_face(hf.DatasetDict({"train": colours}))
    with pytest.raises(ValueError, match=r"got IterableDataset"):
        hugging_face_info(colours.to_iterable_dataset())
    with pytest.raises(ValueError, match=r"no column 'img'; did you mean 'image'"):
        hugging_face(colours, image="img")
    with pytest.raises(ValueError, match=r"'label' in row 1 is 2; it must be true, false or None"):
        hugging_face(colours.add_column("n", [1] * 30), is_clean="label")
