"""Food-101N and Food-101 in a tiny tree of the published form."""

import pytest
import torch

from mln_lightning.batch import UNKNOWN
from mln_lightning.data import DatasetInfo, ImageFormat, NoisyLabelDataModule
from mln_lightning.datasets import food101n
from tests.datasets.trees import lines, picture, ready

TINY = ImageFormat(8, resize=9, fit="squash")
CLASSES = [f"dish_{n:03d}" for n in range(101)]
RIGHT, WRONG, VAL_RIGHT, VAL_WRONG = "a.jpg", "b.jpg", "c.jpg", "d.jpg"
INFO = DatasetInfo("food101n", 101, (3, 8, 8), (0.5,) * 3, (0.2,) * 3)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Of each class an image of each verification, and one that nobody verified."""
    root = tmp_path_factory.mktemp("food") / "food101N"
    release, clean = root / "Food-101N_release", root / "food-101"
    header = "class_name/key"
    # Neither the list nor the folders are in the order of the names.
    lines(
        release / "meta" / "imagelist.tsv",
        [
            header,
            *(
                f"{c}/{f}"
                for f in (RIGHT, WRONG, VAL_RIGHT, VAL_WRONG, "e.jpg")
                for c in reversed(CLASSES)
            ),
        ],
    )
    for name, files in (("train", (RIGHT, WRONG)), ("val", (VAL_RIGHT, VAL_WRONG))):
        flags = [
            f"{c}/{file}\t{flag}" for c in CLASSES for file, flag in zip(files, (1, 0), strict=True)
        ]
        lines(release / "meta" / f"verified_{name}.tsv", [f"{header}\tverification_label", *flags])
    for name, files in (("train", ("1", "2")), ("test", ("3",))):
        lines(clean / "meta" / f"{name}.txt", (f"{c}/{f}" for c in CLASSES for f in files))
    for number, name in enumerate(reversed(CLASSES)):
        for file in (RIGHT, WRONG, VAL_RIGHT, VAL_WRONG, "e.jpg"):
            picture(release / "images" / name / file, number)
        for file in "123":
            picture(clean / "images" / name / f"{file}.jpg", 250)
    return root.parent


@pytest.fixture
def tree(built, tmp_path):
    """The same with lists of its own."""
    for part in ("Food-101N_release", "food-101"):
        folder = tmp_path / "food101N" / part
        (folder / "meta").mkdir(parents=True)
        (folder / "images").symlink_to(built / "food101N" / part / "images")
        for path in (built / "food101N" / part / "meta").iterdir():
            (folder / "meta" / path.name).write_text(path.read_text())
    return tmp_path


def named(images):
    """(class, file) of every image, and whether its label is the class's place among the names."""
    parts = [images.name(row).split("/") for row in range(len(images))]
    assert [CLASSES[label] for label in images.labels.tolist()] == [part[-2] for part in parts]
    return [(part[-2], part[-1]) for part in parts]


def test_own_protocol(built):
    splits = food101n(built, image_format=TINY)
    train = named(splits.train)
    assert sorted(train) == sorted((c, f) for c in CLASSES for f in (RIGHT, WRONG, "e.jpg"))
    for (_, file), label, clean, trusted in zip(
        train,
        splits.train.labels.tolist(),
        splits.train.clean.tolist(),
        splits.train.trusted.tolist(),
        strict=True,
    ):
        # A label that people call wrong is not the truth; what would be, nobody says.
        assert clean == (label if file == RIGHT else UNKNOWN)
        assert trusted == (file == RIGHT)
    assert sorted(named(splits.val)) == sorted(
        (c, f) for c in CLASSES for f in (VAL_RIGHT, VAL_WRONG)
    )
    assert (splits.val.clean != UNKNOWN).sum() == 101
    assert named(splits.test) == [(c, "3.jpg") for c in CLASSES]
    assert splits.test.name(0) == "food-101/images/dish_000/3.jpg"
    assert splits.meta is None


def test_published_protocol(built):
    splits = food101n(built, "published", image_format=TINY)
    assert named(splits.train) == named(food101n(built).train)
    assert named(splits.test) == [(c, VAL_RIGHT) for c in CLASSES]
    # All of Food-101: the first line of a list is an image like any other.
    assert sorted(named(splits.meta)) == sorted((c, f"{f}.jpg") for c in CLASSES for f in "123")
    assert torch.equal(splits.meta.clean, splits.meta.labels)
    assert splits.val is None


def test_own_protocol_through_the_data_module(built):
    module = NoisyLabelDataModule(
        lambda: food101n(built, image_format=TINY), INFO, num_meta=101, batch_size=50
    )
    module.setup()
    assert len(module.parts.meta) == 101
    files = {module.parts.meta.source.images.name(row)[-5:] for row in module.meta_index.tolist()}
    assert files == {RIGHT}
    assert len(module.train_index) == 202
    assert len(module.val_index) == 202
    assert module.noise_rate is None  # all whose class was known are in the meta set
    with pytest.raises(ValueError, match="asks for 102 samples, only 101"):
        NoisyLabelDataModule(
            lambda: food101n(built, image_format=TINY), INFO, num_meta=102, batch_size=50
        ).setup()


def test_its_check_passes(built, capsys):
    ready("dataset=food101n", f"data_dir={built}", "num_meta=101")
    assert "sets        train 202, val 202, meta 101, test 101" in capsys.readouterr().out
    ready(
        "experiment=food101n_published",
        f"data_dir={built}",
        "num_meta=2/class",
        "~model.network.name",
        "~model.network.weights",
    )
    assert "meta 202, test 101" in capsys.readouterr().out


def test_published_protocol_through_the_data_module(built):
    module = NoisyLabelDataModule(
        lambda: food101n(built, "published", image_format=TINY), INFO, num_meta=202, batch_size=50
    )
    module.setup()
    assert module.parts.meta.labels.bincount().tolist() == [2] * 101
    assert len(module.train_index) == 303
    batch = next(iter(module.train_dataloader()["meta"]))
    assert float(batch.images.float().mean()) == pytest.approx(250, abs=1.5)  # not of Food-101N


def test_pictures_are_those_of_the_labels(built):
    images = food101n(built, image_format=TINY).train
    rows = torch.tensor([0, 100, 101, 302])
    greys = images.fetch(rows).float().mean(dim=(1, 2, 3))
    assert (100 - greys).tolist() == pytest.approx(images.labels[rows].tolist(), abs=1.5)


def test_a_stray_verified_image_counts_as_not_verified(tree):
    """As in the release: filet_mignon in the list, hot_and_sour_soup among the verified."""
    path = tree / "food101N" / "Food-101N_release" / "meta" / "verified_train.tsv"
    path.write_text(path.read_text() + "dish_001/e2.jpg\t1\n")
    assert int(food101n(tree, image_format=TINY).train.trusted.sum()) == 101
    path.write_text(path.read_text() + "dish_001/e3.jpg\t1\ndish_001/e4.jpg\t1\n")
    with pytest.raises(ValueError, match=r"verified_train.tsv .*3 of its 205 .*'dish_001/e2.jpg'"):
        food101n(tree)


@pytest.mark.parametrize(
    ("file", "line", "reason"),
    [
        ("Food-101N_release/meta/imagelist.tsv", "dish_000", "a class, a slash and a file name"),
        ("Food-101N_release/meta/verified_val.tsv", "dish_000/a.jpg 1", "a tab and a label"),
        ("Food-101N_release/meta/verified_val.tsv", "dish_000/a.jpg\t2", "label from 0 to 1"),
        ("food-101/meta/test.txt", "Dish_000/1", "a class of Food-101N"),
        ("food-101/meta/test.txt", "dish_000/", "a file name"),
    ],
)
def test_malformed_line(tree, file, line, reason):
    path = tree / "food101N" / file
    number = len(path.read_text().splitlines()) + 1
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(ValueError, match=f"{path.name}, line {number}: .*{reason}"):
        food101n(tree)


def test_a_list_without_its_header(tree):
    path = tree / "food101N" / "Food-101N_release" / "meta" / "imagelist.tsv"
    path.write_text(path.read_text().partition("\n")[2])
    with pytest.raises(ValueError, match=r"imagelist.tsv, line 1: .*expected the header"):
        food101n(tree)


def test_another_number_of_classes(tree):
    path = tree / "food101N" / "Food-101N_release" / "meta" / "imagelist.tsv"
    path.write_text(path.read_text() + "soup/a.jpg\n")
    with pytest.raises(ValueError, match=r"imagelist.tsv .*of 102 classes, Food-101N has 101"):
        food101n(tree)


def test_a_class_without_folder(tree, built):
    images = tree / "food101N" / "food-101" / "images"
    images.unlink()
    images.mkdir()
    for name in CLASSES:
        if name not in ("dish_007", "dish_090"):
            (images / name).mkdir()
    with pytest.raises(FileNotFoundError, match=r"images/dish_007 and .*dish_090 are missing"):
        food101n(tree)


def test_missing_lists_are_all_named(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        food101n(tmp_path)
    for name in (
        "imagelist.tsv",
        "verified_train.tsv",
        "verified_val.tsv",
        "food-101/meta/test.txt",
    ):
        assert name in str(error.value)
    assert "food-101/meta/train.txt" not in str(error.value)
    with pytest.raises(FileNotFoundError, match=r"food-101/meta/train.txt"):
        food101n(tmp_path, "published")


def test_unknown_protocol(tmp_path):
    with pytest.raises(ValueError, match="one of own, published, got 'cleannet'"):
        food101n(tmp_path, "cleannet")
