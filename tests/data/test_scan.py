import threading

import pytest
import torch
from PIL import Image

from mln_lightning.data import EncodedImages, ImageArrays, ImageFormat, drop_unreadable, scan
from mln_lightning.data.scan import in_order
from tests.data.image_trees import encoded, scene, tree

LYING = Image.Exif()
LYING[0x0112] = 6


class Mixed:
    """Pictures of many kinds, and two bad ones."""

    contents = (
        encoded(scene(40, 20), "PNG"),
        b"no image",
        encoded(scene(5, 9).convert("L"), "PNG"),
        encoded(scene(32, 64), "JPEG", exif=LYING),
        encoded(scene(7, 7), "JPEG"),
        None,
    )

    def __len__(self):
        return len(self.contents)

    def name(self, row):
        return f"picture {row}"

    def read(self, row):
        if self.contents[row] is None:
            raise FileNotFoundError
        return self.contents[row]


def mixed():
    labels = torch.arange(6)
    return EncodedImages(Mixed(), labels, labels, labels < 3, image_format=ImageFormat(8))


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_tells_sizes_kinds_and_problems(workers):
    done = []
    found = scan(mixed(), workers=workers, progress=done.append)
    # The picture with an EXIF tag is as wide as a viewer shows it.
    assert found.width.tolist() == [40, 0, 5, 64, 7, 0]
    assert found.height.tolist() == [20, 0, 9, 32, 7, 0]
    assert found.width.dtype == torch.int64
    assert found.modes == {"RGB": 3, "L": 1}
    assert found.problems == {
        1: "picture 1: it is not an image in a known format",
        5: "picture 5: it does not exist",
    }
    assert sum(done) == 6


def test_drops_what_cannot_be_used_and_says_so():
    images, dropped = drop_unreadable(mixed(), workers=2)
    assert images.labels.tolist() == [0, 2, 3, 4]
    assert images.trusted.tolist() == [True, True, False, False]
    assert dropped == [
        "picture 1: it is not an image in a known format",
        "picture 5: it does not exist",
    ]
    assert images.fetch(torch.arange(4)).shape == (4, 3, 8, 8)
    again, none = drop_unreadable(images)
    assert again is images
    assert none == []


def test_refuses_to_go_on_with_nothing():
    with pytest.raises(
        ValueError, match=r"None of the 2 images can be used.* picture 1: it is not"
    ):
        drop_unreadable(mixed().select(torch.tensor([1, 5])))
    with pytest.raises(ValueError, match="must not be negative, got -1"):
        scan(mixed(), workers=-1)


def test_arrays_in_memory_are_good_images():
    images = ImageArrays(torch.zeros(3, 1, 4, 5, dtype=torch.uint8), torch.zeros(3).long())
    done = []
    found = scan(images, progress=done.append)
    assert (found.width.tolist(), found.height.tolist()) == ([5] * 3, [4] * 3)
    assert (found.modes, found.problems, done) == ({"L": 3}, {}, [3])
    assert drop_unreadable(images) == (images, [])
    nothing = scan(images.select(torch.tensor([], dtype=torch.int64)))
    assert len(nothing.width) == 0


def test_a_scan_of_more_images_than_threads_take_at_once(tmp_path):
    images = tree(tmp_path, 150, size=(3, 2))
    (tmp_path / "149.png").write_bytes(b"")
    (tmp_path / "32.png").write_bytes(b"")
    for workers in (0, 2):
        assert list(scan(images, workers=workers).problems) == [32, 149]


def test_threads_keep_the_order_and_run_little_ahead():
    running, most, lock = 0, 0, threading.Lock()

    def ahead():
        nonlocal running, most
        for item in range(200):
            with lock:
                running += 1
                most = max(most, running)
            yield item

    found = []
    for value in in_order(lambda item: item * item, ahead(), workers=3):
        with lock:
            running -= 1
        found.append(value)
    assert found == [item * item for item in range(200)]
    assert most <= 7


def test_an_error_in_a_thread_ends_the_work():
    started = []

    def work(item):
        started.append(item)
        if item == 3:
            raise KeyError("three")
        return item

    with pytest.raises(KeyError, match="three"):
        list(in_order(work, range(10_000), workers=2))
    assert len(started) < 100
