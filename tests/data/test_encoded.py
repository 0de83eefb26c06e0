import os
import pickle
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from mln_lightning.batch import UNKNOWN
from mln_lightning.data import EncodedImages, ImageFiles, ImageFormat
from mln_lightning.data.partition import BatchSource
from tests.data.image_trees import encoded, scene, tree


class InMemory:
    """A store that is no folder."""

    def __init__(self, *contents):
        self.contents = contents

    def __len__(self):
        return len(self.contents)

    def name(self, row):
        return f"picture {row}"

    def read(self, row):
        return self.contents[row]


def test_a_batch_holds_the_pictures_asked_for_in_channels_last_memory(tmp_path):
    images = tree(tmp_path, 7, size=(16, 16))
    rows = torch.tensor([5, 0, 5, 3])
    batch = images.fetch(rows)
    assert batch.shape == (4, 3, 16, 16)
    assert batch.dtype == torch.uint8
    assert batch.is_contiguous(memory_format=torch.channels_last)
    for image, row in zip(batch, rows.tolist(), strict=True):
        stored = np.asarray(Image.open(tmp_path / f"{row}.png"))
        assert (image.permute(1, 2, 0).numpy() == stored).all()
    assert images.fetch(rows[:0]).shape == (0, 3, 16, 16)


def test_select_keeps_images_and_labels_together(tmp_path):
    images = tree(tmp_path, 9)
    images = EncodedImages(
        images.store,
        images.labels,
        torch.tensor([0, UNKNOWN, 2] * 3),
        torch.tensor([True, False, False] * 3),
        image_format=images.image_format,
    )
    once = images.select(torch.tensor([8, 3, 4, 3]))
    twice = once.select(torch.tensor([2, 0]))
    assert len(once) == 4
    assert [once.name(row) for row in range(4)] == ["8.png", "3.png", "4.png", "3.png"]
    assert twice.labels.tolist() == [1, 2]
    assert twice.clean.tolist() == [UNKNOWN, 2]
    assert twice.trusted.tolist() == [False, False]
    assert twice.content(1) == (tmp_path / "8.png").read_bytes()
    assert torch.equal(twice.fetch(torch.tensor([0, 1])), images.fetch(torch.tensor([4, 8])))


@pytest.mark.parametrize("name", ["with space.png", "ümläut 図.png", "deep/er/a.png", "a'b\"c.png"])
def test_any_file_name(tmp_path, name):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    scene().save(tmp_path / name)
    store = ImageFiles(tmp_path, [name, "longer than the others, and not there.png"])
    store = pickle.loads(pickle.dumps(store))
    assert store.name(0) == name
    assert store.read(0) == (tmp_path / name).read_bytes()
    absolute = ImageFiles("elsewhere", [str(tmp_path / name)])
    assert absolute.read(0) == store.read(0)


@pytest.mark.skipif(sys.platform != "linux", reason="names are text elsewhere")
def test_a_file_name_that_is_not_utf8(tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    scene().save(tmp_path / name)
    store = ImageFiles(tmp_path, [name])
    assert store.name(0) == name
    assert store.read(0) == (tmp_path / name).read_bytes()


def test_names_lie_in_one_block_of_memory():
    store = ImageFiles("root", [f"{row:05}.jpg" for row in range(10_000)])
    assert len(pickle.dumps(store)) < 10_000 * 9 + 1000
    assert not any(isinstance(value, list | tuple) for value in vars(store).values())


def test_bad_images_are_named(tmp_path):
    images = tree(tmp_path, 4)
    (tmp_path / "1.png").write_bytes(b"no image")
    (tmp_path / "2.png").unlink()
    (tmp_path / "3.png").unlink()
    (tmp_path / "3.png").mkdir()
    chosen = images.select(torch.tensor([3, 2, 1, 0]))
    with pytest.raises(
        ValueError,
        match=r"^The image 1.png cannot be used, because it is not an image in a known format: .* "
        "on_bad_image=skip.$",
    ):
        chosen.fetch(torch.tensor([3, 2]))
    with pytest.raises(FileNotFoundError, match=r"^The image 2.png .* it does not exist: .*skip.$"):
        chosen.fetch(torch.tensor([1]))
    with pytest.raises(ValueError, match=r"3.png cannot be used, because it cannot be read \(Is a"):
        chosen.fetch(torch.tensor([0]))


def test_any_store_will_do():
    store = InMemory(encoded(scene(), "PNG"), b"")
    images = EncodedImages(
        store, torch.tensor([0, 1]), image_format=ImageFormat((20, 30), channels=1)
    )
    gray = np.asarray(scene().convert("L"))
    assert (images.fetch(torch.tensor([0]))[0, 0].numpy() == gray).all()
    with pytest.raises(ValueError, match="picture 1 cannot be used, because the file is empty"):
        images.fetch(torch.tensor([1]))


def test_refuses_labels_that_do_not_fit(tmp_path):
    store, image_format = InMemory(b"", b""), ImageFormat(8)
    zeros = torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ValueError, match="each of the 2 images"):
        EncodedImages(store, zeros[:1], image_format=image_format)
    with pytest.raises(ValueError, match="Clean labels must be int64"):
        EncodedImages(store, zeros, zeros.float(), image_format=image_format)
    with pytest.raises(ValueError, match="2 trusted images have no clean label"):
        EncodedImages(store, zeros, None, zeros == 0, image_format=image_format)
    with pytest.raises(ValueError, match="rows of images must be int64"):
        EncodedImages(store, zeros, image_format=image_format, rows=zeros.float())


@pytest.mark.parametrize("start", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_workers_bring_the_same_batches(tmp_path, start):
    images = tree(tmp_path, 12)
    source = BatchSource(images, images.labels, images.labels)
    batches = torch.arange(12).split(5)
    here = [source[rows] for rows in batches]
    loader = DataLoader(
        source, batch_size=None, sampler=batches, num_workers=2, multiprocessing_context=start
    )
    for batch, expected in zip(loader, here, strict=True):
        assert all(torch.equal(*pair) for pair in zip(batch, expected, strict=True))
        assert batch.images.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("kind", [ValueError, FileNotFoundError])
def test_a_worker_names_the_bad_image(tmp_path, kind):
    images = tree(tmp_path, 3)
    (tmp_path / "1.png").unlink()
    if kind is ValueError:
        (tmp_path / "1.png").write_bytes(b"no image")
    source = BatchSource(images, images.labels, images.labels)
    loader = DataLoader(source, batch_size=None, sampler=[torch.arange(3)], num_workers=1)
    with pytest.raises(kind, match=r"The image 1.png cannot be used"):
        list(loader)
