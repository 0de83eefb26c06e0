"""Mini-WebVision in a tiny tree of the published form."""

import pytest
import torch
from torchvision.models import ResNet18_Weights

from mln_lightning.config import compose
from mln_lightning.data import DatasetInfo, ImageFormat, NoisyLabelDataModule
from mln_lightning.datasets import webvision
from mln_lightning.datasets.webvision import WNIDS
from tests.datasets.trees import lines, picture, ready

TINY = ImageFormat(8, resize=9, fit="squash")
INFO = DatasetInfo("webvision", 50, (3, 8, 8), (0.5,) * 3, (0.2,) * 3)


@pytest.fixture
def tree(tmp_path):
    """Two Google images and three validation images of each class, and some of other classes."""
    folder = tmp_path / "webvision"
    train = {f"google/q{c:04d}/{i}.jpg": c for c in (*range(50), 50, 999) for i in range(2)}
    val = {f"val{c:04d}{i}.jpg": c for i in range(3) for c in (*range(50), 50, 999)}
    lines(folder / "info" / "train_filelist_google.txt", (f"{k} {c}" for k, c in train.items()))
    lines(folder / "info" / "val_filelist.txt", (f"{k} {c}" for k, c in val.items()))
    for key, label in train.items():
        if label < 50:
            picture(folder / key, label)
    for key, label in val.items():
        if label < 50:
            picture(folder / "val_images" / key, 255 - label)
    return tmp_path


@pytest.fixture
def ilsvrc(tree):
    """The validation images of ILSVRC 2012: one of each class, another synset, and a stray file."""
    folder = tree / "webvision" / "imagenet_val"
    for label, wnid in enumerate((*WNIDS, "n15075141")):
        picture(folder / wnid / f"ILSVRC2012_val_{label:08d}.JPEG", 2 * label)
    (folder / "valprep.sh").touch()
    (folder / WNIDS[0] / ".DS_Store").touch()
    return folder


def test_classes_below_50_in_the_order_of_the_lists(tree):
    splits = webvision(tree, image_format=TINY)
    assert splits.train.labels.tolist() == [c for c in range(50) for _ in range(2)]
    assert splits.train.name(3) == "google/q0001/1.jpg"
    assert splits.train.clean is None
    assert splits.test.labels.tolist() == splits.test.clean.tolist() == list(range(50)) * 3
    assert splits.also_test == {}
    assert splits.meta is splits.val is None
    rows = torch.tensor([0, 49, 99])
    for images, sign, start in ((splits.train, 1, 0), (splits.test, -1, 255)):
        greys = images.fetch(rows).float().mean(dim=(1, 2, 3))
        expected = start + sign * images.labels[rows].float()
        torch.testing.assert_close(greys, expected, atol=1.5, rtol=0)


def test_meta_and_test_set_share_the_validation_images(tree):
    module = NoisyLabelDataModule(
        lambda: webvision(tree, image_format=TINY),
        INFO,
        num_meta="2/class",
        meta_from="test",
        batch_size=20,
    )
    module.setup()
    parts = module.parts
    assert parts.meta.labels.bincount().tolist() == [2] * 50
    assert parts.test.labels.bincount().tolist() == [1] * 50
    assert not set(parts.meta.index.tolist()) & set(parts.test.index.tolist())
    assert len(module.train_index) == 100
    assert module.noise_rate is None


def test_its_check_passes(tree, ilsvrc, capsys):
    ready("dataset=webvision", f"data_dir={tree}", "num_meta=2/class")
    said = capsys.readouterr().out
    assert "ilsvrc2012" in said
    assert "sets        train 100, val 0, meta 100, test 50" in said


def test_second_test_set(tree, ilsvrc):
    images = webvision(tree, image_format=TINY).also_test["ilsvrc2012"]
    assert images.labels.tolist() == images.clean.tolist() == list(range(50))
    assert images.name(49) == f"imagenet_val/{WNIDS[49]}/ILSVRC2012_val_00000049.JPEG"
    grey = images.fetch(torch.tensor([49])).float().mean()
    assert float(grey) == pytest.approx(98, abs=1.5)


def test_second_test_set_with_a_class_missing(tree, ilsvrc):
    gone = ilsvrc / WNIDS[7]
    for file in gone.iterdir():
        file.unlink()
    with pytest.raises(ValueError, match=f"ILSVRC 2012 is not complete: .*{WNIDS[7]} is empty"):
        webvision(tree)
    gone.rmdir()
    with pytest.raises(FileNotFoundError, match=f"{WNIDS[7]} is missing.*or remove"):
        webvision(tree)


def test_the_classes_are_those_of_imagenet():
    assert len(WNIDS) == 50
    assert list(WNIDS) == sorted(WNIDS)
    assert (WNIDS[0], WNIDS[49]) == ("n01440764", "n01697457")
    names = compose(["dataset=webvision"]).dataset.info.classes
    assert list(names) == ResNet18_Weights.IMAGENET1K_V1.meta["categories"][:50]


def test_missing_lists_are_all_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"google.txt and .*val_filelist.txt are missing"):
        webvision(tmp_path)


def test_label_out_of_range(tree):
    path = tree / "webvision" / "info" / "train_filelist_google.txt"
    path.write_text(path.read_text() + "google/q9/1.jpg 1000\n")
    with pytest.raises(ValueError, match=r"google.txt, line 105: .*from 0 to 999"):
        webvision(tree)
