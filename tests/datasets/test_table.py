"""Own images in a table, as the data module gets them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import own_images
from mln_lightning.data import DatasetInfo, ImageFormat, NoisyLabelDataModule
from mln_lightning.datasets import table

SMALL = ImageFormat((8, 12))


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """Ten images of each of two classes; the first three trusted, the last two to test on."""
    rows = []
    for label, name in enumerate(("0", "1")):
        for i in range(10):
            own_images.picture(tmp_path / "bilder" / f"{name}-{i}.png", label, seed=10 * label + i)
            row = {"path": f"bilder/{name}-{i}.png", "label": name, "is_clean": "", "split": ""}
            rows.append(
                row | {"is_clean": "yes" if i < 3 else "", "split": "test" if i > 7 else ""}
            )
    rows[5]["label"] = ""
    return own_images.table(tmp_path / "liste.csv", rows)


def test_images_with_what_is_known_of_them(listed: Path) -> None:
    splits = table(listed, image_format=SMALL)
    train, test = splits.train, splits.test
    assert train.labels.tolist() == [0] * 5 + [-1] + [0] * 2 + [1] * 8
    assert train.clean is not None
    assert train.trusted is not None
    assert train.clean.tolist() == ([0] * 3 + [-1] * 5) + ([1] * 3 + [-1] * 5)
    assert torch.equal(train.trusted, train.clean >= 0)
    assert test is not None
    assert test.labels.tolist() == [0, 0, 1, 1]
    assert test.clean is None
    assert [test.name(row) for row in range(2)] == ["bilder/0-8.png", "bilder/0-9.png"]
    images = test.fetch(torch.arange(4))
    assert images.shape == (4, 3, 8, 12)
    means = images.float().mean((2, 3))
    assert means[0].tolist() == pytest.approx(own_images.COLOURS[0], abs=9)
    assert means[3].tolist() == pytest.approx(own_images.COLOURS[1], abs=9)
    assert (splits.val, splits.meta) == (None, None)


def test_a_table_elsewhere(listed: Path, tmp_path: Path) -> None:
    away = tmp_path / "away" / "liste.csv"
    away.parent.mkdir()
    listed.rename(away)
    with pytest.raises(FileNotFoundError, match=r"line 2: there is no image 'bilder/0-0.png' .*20"):
        table(away)
    splits = table(away, folder=tmp_path, image_format=SMALL)
    assert splits.train.fetch(torch.tensor([0])).shape == (1, 3, 8, 12)


def test_missing_images_are_left_out_if_asked(listed: Path) -> None:
    (listed.parent / "bilder/1-5.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"line 17: .*1 of 20 .*on_bad_image=skip"):
        table(listed)
    with pytest.raises(ValueError, match="'ignore'"):
        table(listed, on_bad_image="ignore")  # type: ignore[arg-type]
    data = NoisyLabelDataModule(
        lambda: table(listed, on_bad_image="skip", image_format=SMALL),
        DatasetInfo("liste", 2, SMALL.shape, (0.5,) * 3, (0.5,) * 3),
        on_bad_image="skip",
        batch_size=2,
    )
    data.setup()
    assert len(data.unreadable) == 1
    assert "bilder/1-5.png" in data.unreadable[0]
    sizes = {name: len(part) for name, part in data.parts.named().items()}
    assert sizes == {"train": 9, "val": 0, "meta": 6, "test": 4}


def test_nobody_is_trusted(listed: Path) -> None:
    listed.write_text(listed.read_text().replace("yes", ""))
    splits = table(listed, image_format=SMALL)
    assert (splits.train.clean, splits.train.trusted) == (None, None)
    listed.write_text(listed.read_text().replace("is_clean", "clean_label"))
    assert table(listed, image_format=SMALL).train.trusted is None
