"""Fashion-MNIST: damaged and missing files, and the real data where there are some."""

import gzip
import hashlib
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from torchvision import datasets
from torchvision.datasets.mnist import read_image_file, read_label_file

from mln_lightning.datasets import fashion_mnist

SIZES = {"train": 60000, "t10k": 10000}


def idx(array):
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return header + array.tobytes()


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Four files of the right size whose checksums stand in for the published ones."""
    folder = tmp_path / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    sums = []
    for prefix, size in SIZES.items():
        images = np.zeros((size, 28, 28), dtype=np.uint8)
        images[:, 3, 5] = np.arange(size) % 251
        labels = (np.arange(size) % 10).astype(np.uint8)
        for name, array in (("images-idx3", images), ("labels-idx1", labels)):
            path = folder / f"{prefix}-{name}-ubyte.gz"
            path.write_bytes(gzip.compress(idx(array), compresslevel=1))
            sums.append((path.name, hashlib.md5(path.read_bytes()).hexdigest()))
    monkeypatch.setattr(datasets.FashionMNIST, "resources", sums)
    return folder


def test_packed_and_unpacked_files_are_read_in_place(tree):
    before = sorted(tree.iterdir())
    packed = fashion_mnist(tree.parents[1])
    assert sorted(tree.iterdir()) == before
    assert packed.train.images.shape == (60000, 1, 28, 28)
    assert packed.test.images[:, 0, 3, 5].tolist() == [i % 251 for i in range(10000)]
    assert packed.test.labels[:12].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    for path in before:
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    unpacked = fashion_mnist(tree.parents[1], download=True)  # complete: nothing to download
    assert unpacked.train.images.equal(packed.train.images)
    assert unpacked.train.labels.equal(packed.train.labels)
    raw = tree / "t10k-images-idx3-ubyte"
    raw.write_bytes(raw.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"t10k-images-idx3-ubyte has 7840015 .* expected 7840016"):
        fashion_mnist(tree.parents[1])


def test_missing_and_damaged_files(tree):
    path = tree / "train-labels-idx1-ubyte.gz"
    content = path.read_bytes()
    path.unlink()
    with pytest.raises(FileNotFoundError) as missing:
        fashion_mnist(tree.parents[1])
    assert str(path) in str(missing.value)
    assert "download=true" in str(missing.value)
    path.write_bytes(content[:-3])
    with pytest.raises(ValueError, match="is damaged") as damaged:
        fashion_mnist(tree.parents[1])
    for part in (
        str(path),
        hashlib.md5(content).hexdigest(),
        hashlib.md5(content[:-3]).hexdigest(),
        f"{len(content) - 3} bytes",
    ):
        assert part in str(damaged.value)


@pytest.fixture
def real():
    data_dir = Path(os.environ.get("MLN_DATA_DIR", "nowhere"))
    if not (data_dir / "FashionMNIST" / "raw" / "train-images-idx3-ubyte.gz").is_file():
        pytest.skip("no Fashion-MNIST under MLN_DATA_DIR")
    return data_dir


def test_real_data_against_torchvision(real, tmp_path):
    folder = real / "FashionMNIST" / "raw"
    before = sorted(folder.iterdir())
    splits = fashion_mnist(real)
    assert sorted(folder.iterdir()) == before
    for prefix, part in (("train", splits.train), ("t10k", splits.test)):
        for kind in ("images-idx3", "labels-idx1"):
            name = f"{prefix}-{kind}-ubyte"
            packed = (folder / f"{name}.gz").read_bytes()
            (tmp_path / name).write_bytes(gzip.decompress(packed))
        assert part.images[:, 0].equal(
            read_image_file(str(tmp_path / f"{prefix}-images-idx3-ubyte"))
        )
        assert part.labels.equal(read_label_file(str(tmp_path / f"{prefix}-labels-idx1-ubyte")))
    scaled = splits.train.images.double() / 255
    assert float(scaled.mean()) == pytest.approx(0.2860, abs=1e-4)
    assert float(scaled.std()) == pytest.approx(0.3530, abs=1e-4)
