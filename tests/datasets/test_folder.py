"""Own images in folders, as the data module gets them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import own_images
from mln_lightning.data import DatasetInfo, ImageFormat, NoisyLabelDataModule
from mln_lightning.datasets import folder

SMALL = ImageFormat(16)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return own_images.folder(tmp_path / "meine fotos", each=12)


@pytest.fixture
def verified(photos: Path) -> Path:
    """Five images of each class; of the third one, two show the first."""
    rows = [
        {"path": f"{name}/Bild {i}.jpg", "label": "grün" if label == 2 and i < 2 else name}
        for label, name in enumerate(own_images.CLASSES)
        for i in range(5)
    ]
    return own_images.table(photos.parent / "geprüft.csv", rows)


def test_images_with_what_is_known_of_them(photos: Path, verified: Path) -> None:
    (photos / "rot" / "thumbs.db").touch()
    splits = folder(photos, verified=verified, image_format=SMALL)
    train = splits.train
    assert train.labels.dtype == torch.int64
    assert train.labels.tolist() == [0] * 12 + [1] * 12 + [2] * 12
    assert train.clean is not None
    assert train.trusted is not None
    assert int(train.trusted.sum()) == 15
    assert torch.equal(train.trusted, train.clean >= 0)
    known = train.clean[train.trusted].tolist()
    assert known == [0] * 5 + [1] * 5 + [0, 0] + [2] * 3
    assert (splits.val, splits.meta, splits.test) == (None, None, None)
    assert splits.notes == ("files beside the images that were left aside: 1 (.db 1)",)
    rows = torch.arange(len(train))
    images = train.fetch(rows)
    assert images.shape == (36, 3, 16, 16)
    assert images.dtype == torch.uint8
    # Every image has the colour of its folder, the gray one and the CMYK one apart.
    for row in rows.tolist():
        path = photos / train.name(row)
        assert train.content(row) == path.read_bytes()
        if path.name not in ("Bild 0.jpg", "Bild 1.jpg"):
            colour = own_images.COLOURS[int(train.labels[row])]
            assert images[row].float().mean((1, 2)).tolist() == pytest.approx(colour, abs=9)


def test_parts_and_unlabelled_images(photos: Path, tmp_path: Path) -> None:
    for key, label in (("meta", 0), ("val", 1), ("test", 2)):
        own_images.picture(tmp_path / key / own_images.CLASSES[label] / "1.png", label)
    own_images.picture(tmp_path / "neu" / "x.png", 1)
    splits = folder(
        photos,
        meta=tmp_path / "meta",
        val=tmp_path / "val",
        test=tmp_path / "test",
        unlabelled=tmp_path / "neu",
        image_format=SMALL,
    )
    assert splits.train.labels.tolist()[-2:] == [2, -1]
    assert splits.train.clean is None
    for part, label in ((splits.meta, 0), (splits.val, 1), (splits.test, 2)):
        assert part is not None
        assert part.labels.tolist() == [label]
        assert part.fetch(torch.tensor([0])).shape == (1, 3, 16, 16)


def test_classes_in_an_order_of_ones_own(photos: Path) -> None:
    splits = folder(photos, classes=["tiefes blau", "rot", "grün"], image_format=SMALL)
    assert splits.train.labels.tolist() == [2] * 12 + [1] * 12 + [0] * 12
    with pytest.raises(ValueError, match="'tiefes blau' is not among the classes"):
        folder(photos, classes=["blau", "rot", "grün"])


def info() -> DatasetInfo:
    half = (0.5,) * 3
    return DatasetInfo("fotos", 3, SMALL.shape, half, half, classes=own_images.CLASSES)


def test_meta_and_test_set_are_cut_from_the_verified_images(photos: Path, verified: Path) -> None:
    data = NoisyLabelDataModule(
        lambda: folder(photos, verified=verified, image_format=SMALL),
        info(),
        num_val="10%",
        num_test="20%",
        batch_size=4,
    )
    data.setup()
    sizes = {name: len(part) for name, part in data.parts.named().items()}
    assert sizes == {"train": 19, "val": 2, "meta": 12, "test": 3}
    names = [
        data.parts.train.source.images.name(row)
        for part in (data.parts.meta, data.parts.test)
        if part is not None
        for row in part.index.tolist()
    ]
    assert len(set(names)) == 15
    assert all(int(name.split()[-1].removesuffix(".jpg")) < 5 for name in names)
    assert "2 of 15 verified images carry another observed label" in data.notes


def test_a_validation_folder_is_used_whole(photos: Path, verified: Path, tmp_path: Path) -> None:
    for i in range(10):
        own_images.picture(tmp_path / "val" / "rot" / f"{i}.png", 1, seed=77 + i)
    data = NoisyLabelDataModule(
        lambda: folder(photos, verified=verified, val=tmp_path / "val", image_format=SMALL),
        info(),
        num_val="10%",  # of the training images
        batch_size=4,
    )
    data.setup()
    assert len(data.parts.val) == 10
    assert len(data.parts.train) == 21


def test_unreadable_images_are_left_out_if_asked(photos: Path, verified: Path) -> None:
    (photos / "rot" / "kaputt.jpg").write_bytes(b"no picture")
    (photos / "rot" / "Thumbs.db").touch()
    data = NoisyLabelDataModule(
        lambda: folder(photos, verified=verified, image_format=SMALL),
        info(),
        on_bad_image="skip",
        batch_size=4,
    )
    data.setup()
    assert len(data.labels) == 36
    assert len(data.unreadable) == 1
    assert "rot/kaputt.jpg" in data.unreadable[0]
    assert data.notes[0] == "files beside the images that were left aside: 1 (.db 1)"
