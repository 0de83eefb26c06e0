"""Clothing1M in a tiny tree of the published form."""

import pytest
import torch

from mln_lightning.batch import UNKNOWN
from mln_lightning.data import DatasetInfo, ImageFormat, NoisyLabelDataModule
from mln_lightning.datasets import clothing1m
from tests.datasets.trees import lines, picture, ready

TINY = ImageFormat(8, resize=9, fit="squash")
NOISY = [f"images/{n % 10}/{n},{n}.jpg" for n in range(30)]
CLEAN = {part: [f"images/{part}/{n}.jpg" for n in range(14)] for part in ("train", "val", "test")}


@pytest.fixture
def tree(tmp_path):
    """30 noisy images (classes 0 to 13 in turn), 14 of each clean part; some have both labels."""
    folder = tmp_path / "clothing1M"
    lines(folder / "noisy_train_key_list.txt", NOISY)
    for part, keys in CLEAN.items():
        lines(folder / f"clean_{part}_key_list.txt", reversed(keys))
    both = {NOISY[3]: 5, CLEAN["train"][2]: 9}
    noisy = {key: n % 14 for n, key in enumerate(NOISY)} | {CLEAN["train"][2]: 0}
    # Labels of images in no list: they must not count.
    noisy |= {f"images/elsewhere/{n}.jpg": 0 for n in range(50)}
    clean = {key: n for keys in CLEAN.values() for n, key in enumerate(keys)}
    lines(folder / "noisy_label_kv.txt", (f"{k} {n}" for k, n in noisy.items()))
    lines(folder / "clean_label_kv.txt", (f"{k} {n}" for k, n in (clean | both).items()))
    for number, key in enumerate([*NOISY, *(key for keys in CLEAN.values() for key in keys)]):
        picture(folder / key, 3 * number)
    return tmp_path


def names(images):
    return [images.name(row) for row in range(len(images))]


def test_noisy(tree):
    splits = clothing1m(tree, image_format=TINY)
    assert names(splits.train) == NOISY
    assert splits.train.labels.tolist() == [n % 14 for n in range(30)]
    known = splits.train.clean != UNKNOWN
    assert known.nonzero().squeeze(1).tolist() == [3]
    assert int(splits.train.clean[3]) == 5
    assert not splits.train.trusted.any()
    for part in ("val", "test"):
        images = splits.meta if part == "val" else splits.test
        assert names(images) == CLEAN[part][::-1]
        assert images.labels.tolist() == images.clean.tolist() == list(range(13, -1, -1))
    assert splits.val is None
    assert splits.also_test == {}


def test_pictures_are_those_of_the_labels(tree):
    splits = clothing1m(tree, image_format=TINY)
    fetched = splits.train.fetch(torch.tensor([0, 29]))
    assert fetched.shape == (2, 3, 8, 8)
    assert fetched.float().mean(dim=(1, 2, 3)).tolist() == pytest.approx([0, 87], abs=1.5)
    # The list of test images is written backwards.
    first = splits.test.fetch(torch.tensor([0])).float().mean()
    assert float(first) == pytest.approx(3 * (30 + 3 * 14 - 1), abs=1.5)


def test_with_clean_train(tree):
    train = clothing1m(tree, "with_clean_train", image_format=TINY).train
    assert names(train) == NOISY + CLEAN["train"][::-1]
    expected = [n % 14 for n in range(30)] + list(range(13, -1, -1))
    expected[3] = 5
    expected[30 + 11] = 9  # clean_train's image 2 carries the clean label of `both`
    assert train.labels.tolist() == expected
    clean = torch.full((44,), UNKNOWN)
    clean[3] = 5
    clean[30:] = torch.tensor(expected[30:])
    assert torch.equal(train.clean, clean)
    assert not train.trusted.any()


def test_an_image_in_both_training_lists_occurs_once(tree):
    path = tree / "clothing1M" / "clean_train_key_list.txt"
    lines(path, [NOISY[3], *CLEAN["train"]])
    train = clothing1m(tree, "with_clean_train", image_format=TINY).train
    assert names(train) == NOISY + CLEAN["train"]
    assert int(train.labels[3]) == 5


def test_balanced_counts_only_the_training_list(tree):
    # Classes 0 and 1 have three images in the list, the others two; 50 more of class 0 are outside.
    train = clothing1m(tree, "balanced", image_format=TINY).train
    assert names(train) == NOISY[:28]
    assert train.labels.bincount().tolist() == [2] * 14
    lines(tree / "clothing1M" / "noisy_train_key_list.txt", NOISY[::-1])
    train = clothing1m(tree, "balanced", image_format=TINY).train
    assert names(train) == NOISY[:1:-1]  # first come: in the list's order
    lines(tree / "clothing1M" / "noisy_train_key_list.txt", NOISY[:13])
    with pytest.raises(ValueError, match="class 13 has none"):
        clothing1m(tree, "balanced")


def test_through_the_data_module(tree):
    info = DatasetInfo("clothing1m", 14, (3, 8, 8), (0.5,) * 3, (0.2,) * 3)
    module = NoisyLabelDataModule(
        lambda: clothing1m(tree, image_format=TINY), info, batch_size=8, meta_batch_size=14
    )
    module.setup()
    batch = next(iter(module.train_dataloader()["meta"]))
    assert sorted(set(batch.labels.tolist())) == list(range(14))
    assert len(module.train_index) == 30
    assert module.noise_rate == 1.0  # of the one image whose class is known
    test = torch.cat([batch.labels for batch in module.test_dataloader()])
    assert test.tolist() == list(range(13, -1, -1))
    assert module.val_dataloader() == []


def test_its_check_passes(tree, capsys):
    ready("dataset=clothing1m", f"data_dir={tree}", "dataset.batch_size=8")
    said = capsys.readouterr().out
    assert "trained on as 224 x 224 colour images" in said
    assert "sets        train 30, val 0, meta 14, test 14" in said


def test_unknown_variant(tmp_path):
    with pytest.raises(ValueError, match="one of noisy, with_clean_train, balanced, got 'clean'"):
        clothing1m(tmp_path, "clean")


def test_missing_lists_are_all_named(tree):
    folder = tree / "clothing1M"
    (folder / "clean_val_key_list.txt").unlink()
    (folder / "noisy_label_kv.txt").unlink()
    with pytest.raises(FileNotFoundError) as error:
        clothing1m(tree)
    for part in ("clean_val_key_list.txt and ", "noisy_label_kv.txt are missing", "Cysu"):
        assert part in str(error.value)
    assert "clean_test" not in str(error.value)


def test_missing_image_is_named_when_it_is_needed(tree):
    (tree / "clothing1M" / NOISY[2]).unlink()
    images = clothing1m(tree, image_format=TINY).train
    with pytest.raises(FileNotFoundError, match=r"images/2/2,2.jpg"):
        images.fetch(torch.tensor([2]))


def test_image_without_label(tree):
    lines(tree / "clothing1M" / "clean_test_key_list.txt", [*CLEAN["test"], "images/9/new.jpg"])
    with pytest.raises(
        ValueError, match=r"clean_test_key_list.txt, line 15: 'images/9/new.jpg'.*clean_label_kv"
    ):
        clothing1m(tree)


def test_label_out_of_range(tree):
    path = tree / "clothing1M" / "noisy_label_kv.txt"
    path.write_text(path.read_text() + "images/9/new.jpg 14\n")
    with pytest.raises(ValueError, match=r"noisy_label_kv.txt, line 82: .*from 0 to 13"):
        clothing1m(tree)
