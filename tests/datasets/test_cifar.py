"""CIFAR: small sets in the real file format, and the real data where there are some."""

import hashlib
import os
import pickle
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR10, CIFAR100

from mln_lightning.datasets import cifar10, cifar100
from mln_lightning.datasets.cifar import read_batches
from tests.datasets.trees import ready


class Danger:
    """Pickles to a call of ``os.mkdir``."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def write_batch(path, size, seed, **changes):
    draws = np.random.default_rng(seed)
    entry = {
        "batch_label": path.name,
        "labels": (np.arange(size) % 10).tolist(),
        "data": draws.integers(0, 256, (size, 3072), dtype=np.uint8),
        "filenames": [f"{i}.png" for i in range(size)],
    }
    path.write_bytes(pickle.dumps(entry | changes, protocol=2))
    return entry


@pytest.fixture
def tree(tmp_path):
    """A folder with 5 · 20 training and 10 test images, and a reader that knows its checksums."""
    folder = tmp_path / CIFAR10.base_folder
    folder.mkdir()
    names = [f"data_batch_{i}" for i in range(1, 6)]
    entries = {name: write_batch(folder / name, 20, i) for i, name in enumerate(names)}
    entries["test_batch"] = write_batch(folder / "test_batch", 10, 9)
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    sums = {f.name: hashlib.md5(f.read_bytes()).hexdigest() for f in folder.iterdir()}

    class Reader(CIFAR10):
        train_list = [[name, sums[name]] for name in names]  # noqa: RUF012
        test_list = [["test_batch", sums["test_batch"]]]  # noqa: RUF012
        meta = {**CIFAR10.meta, "md5": sums["batches.meta"]}  # noqa: RUF012

    return folder, entries, Reader


def read(tree, verify, per_class=(10, 1), download=False):
    folder, _, reader = tree
    return read_batches(
        reader, folder.parent, name="Fake", per_class=per_class, download=download, verify=verify
    )


@pytest.mark.parametrize("verify", [True, False])
def test_images_and_labels_in_file_order(tree, verify):
    splits = read(tree, verify)
    _, entries, _ = tree
    train = np.concatenate([entries[f"data_batch_{i}"]["data"] for i in range(1, 6)])
    assert np.array_equal(splits.train.images.numpy(), train.reshape(-1, 3, 32, 32))
    assert splits.train.labels.tolist() == [i % 10 for i in range(20)] * 5
    assert np.array_equal(
        splits.test.images.numpy(), entries["test_batch"]["data"].reshape(-1, 3, 32, 32)
    )
    assert splits.test.labels.tolist() == list(range(10))


def test_complete_data_are_not_downloaded_again(tree):
    assert len(read(tree, True, download=True).train) == 100


def test_failed_download(tree, monkeypatch):
    folder, _, reader = tree
    (folder / "test_batch").unlink()

    def no_network(self):
        raise URLError("Name or service not known")

    monkeypatch.setattr(reader, "download", no_network)
    with pytest.raises(FileNotFoundError, match=r"Fake could not be downloaded.*service not known"):
        read(tree, True, download=True)


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("name", ["data_batch_3", "test_batch", "batches.meta"])
def test_missing_file(tree, verify, name):
    path = tree[0] / name
    path.unlink()
    with pytest.raises(FileNotFoundError) as error:
        read(tree, verify)
    for part in ("Fake", str(path), "cifar-10-python.tar.gz", "download=true"):
        assert part in str(error.value)


def test_other_checksum(tree):
    path = tree[0] / "data_batch_2"
    expected = hashlib.md5(path.read_bytes()).hexdigest()
    path.write_bytes(path.read_bytes()[:-100])
    found = hashlib.md5(path.read_bytes()).hexdigest()
    with pytest.raises(ValueError, match="is damaged") as error:
        read(tree, True)
    for part in (str(path), expected, found, str(path.stat().st_size), "dataset.verify=false"):
        assert part in str(error.value)
    with pytest.raises(ValueError, match=r"data_batch_2 .* cannot be read"):
        read(tree, False)


def test_a_repacked_copy_is_read_without_verification_only(tree):
    path = tree[0] / "data_batch_2"
    entry = tree[1]["data_batch_2"]
    path.write_bytes(pickle.dumps(entry | {"filenames": ["x"] * 20}, protocol=4))
    with pytest.raises(ValueError, match="expected"):
        read(tree, True)
    again = read(tree, False)
    assert np.array_equal(again.train.images[20:40].numpy().reshape(20, -1), entry["data"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": [0] * 20}, "every class should have 10 training images, found 8 to 28"),
        ({"labels": [-1] + [0] * 19}, "every class should have 10"),
        ({"labels": [*range(10), *range(1, 11)]}, "found 1 to 10 of 11 classes"),
        ({"labels": [0] * 19}, "for 19 labels"),
        ({"data": np.zeros((20, 3072), dtype=np.float32)}, "images are float32"),
        ({"data": np.zeros((20, 1024), dtype=np.uint8)}, r"images are uint8 \(20, 1024\)"),
        ({"data": None}, "images are object"),
    ],
)
def test_content_is_checked_without_verification(tree, changes, message):
    write_batch(tree[0] / "data_batch_2", 20, 1, **changes)
    with pytest.raises(ValueError, match=message):
        read(tree, False)


def test_grey_values_are_checked(tree):
    dark = np.ones((10, 3072), dtype=np.uint8)
    write_batch(tree[0] / "test_batch", 10, 1, data=dark)
    with pytest.raises(ValueError, match="test images should span 0 to 255, they run from 1 to 1"):
        read(tree, False)


def test_no_code_of_a_file_is_run(tree, tmp_path):
    write_batch(tree[0] / "data_batch_1", 20, 1, filenames=Danger(tmp_path / "owned"))
    with pytest.raises(ValueError, match="mkdir, which is no plain data"):
        read(tree, False)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("read_set", "file"),
    [(cifar10, "cifar-10-batches-py/data_batch_1"), (cifar100, "cifar-100-python/train")],
)
def test_nothing_there(tmp_path, read_set, file):
    with pytest.raises(FileNotFoundError, match=file):
        read_set(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_real_cifar10(real_cifar10):
    splits = cifar10(real_cifar10, verify=False)
    assert splits.train.images.shape == (50000, 3, 32, 32)
    assert splits.test.labels.bincount().tolist() == [1000] * 10
    # Published channel statistics, and the labels of the first images.
    scaled = splits.train.images.double() / 255
    means, stds = scaled.mean(dim=(0, 2, 3)), scaled.std(dim=(0, 2, 3))
    torch.testing.assert_close(
        means, torch.tensor([0.4914, 0.4822, 0.4465]).double(), atol=1e-4, rtol=0
    )
    torch.testing.assert_close(
        stds, torch.tensor([0.2470, 0.2435, 0.2616]).double(), atol=1e-4, rtol=0
    )
    assert splits.train.labels[:10].tolist() == [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]
    assert splits.test.labels[:10].tolist() == [3, 8, 8, 0, 6, 6, 1, 6, 3, 1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "labels",
    [(), ("noise=asym", "rate=0.4"), ("noise=instance", "rate=0.2"), ("noise=cluster", "rate=0.4")],
)
def test_the_check_of_real_cifar10_passes(real_cifar10, capsys, labels):
    ready("dataset=cifar10", f"data_dir={real_cifar10}", "dataset.verify=false", *labels)
    said = capsys.readouterr().out
    assert "no exact copies" in said
    assert "sets        train 48,000, val 1,000, meta 1,000, test 10,000" in said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("label_set", "wrong"),
    [("aggre", "9.0"), ("rand1", "17.2"), ("rand2", "18.1"), ("rand3", "17.6"), ("worst", "40.2")],
)
def test_the_check_of_real_cifar10n_passes(real_cifar10, capsys, label_set, wrong):
    labels = Path(os.environ["MLN_DATA_DIR"]) / "cifar-n" / "CIFAR-10_human.pt"
    if not labels.is_file():
        pytest.skip("no CIFAR-10N under MLN_DATA_DIR")
    ready(
        "dataset=cifar10n",
        f"data_dir={real_cifar10}",
        "dataset.verify=false",
        f"noise.file={labels}",
        f"noise.label_set={label_set}",
    )
    assert f"noise=human makes {wrong} % of them wrong" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("dataset", ["cifar100", "cifar100n"])
def test_the_check_of_cifar100_passes(tmp_path, capsys, dataset):
    """All 60,000 images in the published format, made up; people's labels, all right here."""
    folder = tmp_path / CIFAR100.base_folder
    folder.mkdir()
    for name, size in (("train", 50_000), ("test", 10_000)):
        labels = (np.arange(size) % 100).tolist()
        write_batch(folder / name, size, size, fine_labels=labels, coarse_labels=labels)
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": []}))
    (tmp_path / "cifar-n").mkdir()
    clean = np.arange(50_000) % 100
    torch.save(
        {"clean_label": clean, "noisy_label": clean}, tmp_path / "cifar-n" / "CIFAR-100_human.pt"
    )
    ready(f"dataset={dataset}", f"data_dir={tmp_path}", "dataset.verify=false")
    assert "sets        train 48,000, val 1,000, meta 1,000" in capsys.readouterr().out
