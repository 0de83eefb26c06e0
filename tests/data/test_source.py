import numpy as np
import pytest
import torch

from mln_lightning.data import DatasetInfo, ImageArrays
from mln_lightning.seeding import generator


def random_images(*shape):
    return torch.randint(256, shape, dtype=torch.uint8, generator=generator(0))


def test_layouts_of_numpy_arrays():
    gray, colour = random_images(6, 5, 7), random_images(6, 3, 5, 7)
    labels = np.arange(6, dtype=np.int32)
    from_gray = ImageArrays.from_numpy(gray.numpy(), labels)
    assert torch.equal(from_gray.images[:, 0], gray)
    assert from_gray.labels.dtype == torch.int64
    last = ImageArrays.from_numpy(colour.permute(0, 2, 3, 1).numpy(), list(range(6)), labels)
    assert torch.equal(last.images, colour)
    assert torch.equal(last.clean, torch.arange(6))
    assert torch.equal(ImageArrays.from_numpy(colour, labels).images, colour)


def test_fetch_and_select():
    arrays = ImageArrays(random_images(6, 1, 4, 4), torch.arange(6), torch.arange(6).flip(0))
    rows = torch.tensor([4, 1])
    assert len(arrays) == 6
    assert torch.equal(arrays.fetch(rows), arrays.images[rows])
    part = arrays.select(rows)
    assert (part.labels.tolist(), part.clean.tolist()) == ([4, 1], [1, 4])


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.zeros(2, 1, 4, 4), torch.zeros(2, dtype=torch.int64), "must be uint8"),
        (random_images(2, 4), torch.zeros(2, dtype=torch.int64), r"shape \(N, K, H, W\)"),
        (random_images(2, 1, 4, 4), torch.zeros(2), "Labels must be int64"),
        (random_images(2, 1, 4, 4), torch.zeros(3, dtype=torch.int64), "each of the 2 images"),
        (random_images(2, 1, 4, 4), torch.tensor([0, -2]), "from 0 up, got -2"),
    ],
)
def test_bad_arrays_are_refused(images, labels, message):
    with pytest.raises(ValueError, match=message):
        ImageArrays(images, labels)


def test_float_labels_are_refused():
    with pytest.raises(ValueError, match=r"must be integers, got torch\.float64"):
        ImageArrays.from_numpy(random_images(2, 4, 4), np.array([0.0, 1.0]))


def test_description_of_images():
    images = random_images(50, 3, 6, 5)
    info = DatasetInfo.of(images, 7, name="mine")
    assert (info.name, info.num_classes, info.shape, info.num_train) == ("mine", 7, (3, 6, 5), 50)
    scaled = images.numpy().astype(np.float64) / 255
    assert info.mean == pytest.approx(scaled.mean(axis=(0, 2, 3)))
    assert info.std == pytest.approx(scaled.std(axis=(0, 2, 3)))
    assert DatasetInfo.of(images.permute(0, 2, 3, 1).numpy(), 7).mean == info.mean
    assert DatasetInfo.of(torch.full((2, 1, 3, 3), 9, dtype=torch.uint8), 2).std == (1.0,)


def describe(**changes):
    fields = {
        "name": "x",
        "num_classes": 2,
        "shape": [1, 4, 4],
        "mean": [0.5],
        "std": [0.5],
        "num_train": 9,
    }
    return DatasetInfo(**(fields | changes))


def test_lists_from_a_configuration_become_tuples():
    info = describe(flips={"0": 1}, classes=["cat", "dog"])
    assert info.shape == (1, 4, 4)
    assert info.flips == {0: 1}
    assert info.classes == ("cat", "dog")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_classes": 1}, "at least 2 classes"),
        ({"shape": [4, 4]}, r"must be \(K, H, W\)"),
        ({"mean": [0.1, 0.2]}, "has 1 channels"),
        ({"std": [0.0]}, "must be positive"),
        ({"classes": ["a"]}, "2 classes but 1 class names"),
    ],
)
def test_bad_descriptions_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        describe(**changes)


def test_no_images_no_description():
    with pytest.raises(ValueError, match="no images"):
        DatasetInfo.of(random_images(0, 1, 4, 4), 3)
