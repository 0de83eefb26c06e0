"""The cache of decoded images: right pixels, and no way to get wrong ones."""

import errno
import multiprocessing
import os
import pickle
import shutil
import signal
import sys
from collections import namedtuple
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from mln_lightning.data import (
    EncodedImages,
    ImageFiles,
    ImageFormat,
    cache,
    cached,
    drop_unreadable,
    pixel_file,
    scan,
)
from mln_lightning.data.partition import BatchSource
from tests.data.image_trees import encoded, scene, tree

fork = multiprocessing.get_context("fork") if sys.platform == "linux" else None
needs_fork = pytest.mark.skipif(fork is None, reason="needs fork")
ALL = torch.arange(40)


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def the_file(folder):
    (path,) = folder.glob("images-*.npy")
    return path


@pytest.fixture
def images(tmp_path):
    return tree(tmp_path / "tree", 40)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "deep" / "cache"


class Watched(ImageFiles):
    """Calls ``before`` whenever an image is read."""

    before = staticmethod(lambda row: None)

    def read(self, row):
        self.before(row)
        return super().read(row)


def watched(images, before):
    store = Watched(images.store.root, [images.name(row) for row in range(len(images))])
    store.before = before
    return replace(images, store=store)


def never(row):
    raise AssertionError(f"row {row} was read")


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("channels", [1, 3])
def test_brings_the_same_images_and_reads_no_file_again(images, folder, workers, channels):
    images = replace(images, image_format=ImageFormat((8, 12), channels=channels))
    done = []
    first = cached(images, folder, workers=workers, progress=done.append)
    assert sum(done) == 40
    again = cached(watched(images, never), folder, progress=never)
    for found in (first, again):
        assert len(found) == 40
        assert torch.equal(found.fetch(ALL), images.fetch(ALL))
        assert found.fetch(ALL).is_contiguous(memory_format=torch.channels_last) or channels == 1
        assert torch.equal(found.labels, images.labels)
        assert torch.equal(found.clean, images.clean)
        assert found.trusted is None
    assert found.name(3) == "3.png"
    assert first.content(3) == images.content(3)
    assert len(files(folder)) == 3
    # Anyone can read the file.
    assert np.load(the_file(folder)).shape == (40, 8, 12, channels)


def test_select_on_a_cached_set(images, folder):
    found = cached(images, folder).select(torch.tensor([7, 2, 30, 2])).select(torch.tensor([2, 0]))
    assert torch.equal(found.fetch(torch.tensor([0, 1])), images.fetch(torch.tensor([30, 7])))
    assert [found.name(0), found.name(1)] == ["30.png", "7.png"]
    assert found.labels.tolist() == [0, 1]
    # A part of a set has a cache of its own.
    part = images.select(torch.tensor([30, 7]))
    assert torch.equal(
        cached(part, folder).fetch(torch.tensor([1])), found.fetch(torch.tensor([1]))
    )
    assert len(list(folder.glob("*.npy"))) == 2


def test_pickles_without_its_pixels_and_works_in_workers(images, folder):
    found = cached(images, folder)
    expected = found.fetch(ALL)
    data = pickle.dumps(found)
    assert len(data) < 10_000 < expected.numel()
    assert torch.equal(pickle.loads(data).fetch(ALL), expected)
    source = BatchSource(found, found.labels, found.labels)
    batches = list(DataLoader(source, batch_size=None, sampler=ALL.split(16), num_workers=2))
    assert torch.equal(torch.cat([batch.images for batch in batches]), expected)


def test_what_changes_the_images_builds_another_cache(images, folder, tmp_path):
    cached(images, folder)

    def builds(other):
        done = []
        found = cached(other, folder, progress=done.append)
        assert torch.equal(found.fetch(ALL[:30]), other.fetch(ALL[:30]))
        return bool(done)

    assert not builds(images)
    assert builds(replace(images, image_format=ImageFormat(16, resize=17)))
    assert builds(images.select(torch.arange(39, -1, -1)))
    shutil.copytree(tmp_path / "tree", tmp_path / "other")  # equal names, sizes and times
    names = [images.name(row) for row in range(40)]
    assert builds(replace(images, store=ImageFiles(tmp_path / "other", names)))
    # The same size, another content: the time tells.
    path = tmp_path / "tree" / "5.png"
    before, swapped = path.stat(), images.content(6)
    path.write_bytes(swapped[: before.st_size].ljust(before.st_size, b"\0"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert builds(images)
    assert not builds(images)


def test_other_stores_are_known_by_their_content(folder):
    class Store:
        def __init__(self, *sizes):
            self.contents = [encoded(scene(*size), "PNG") for size in sizes]

        def __len__(self):
            return len(self.contents)

        def name(self, row):
            return f"row {row}"

        def read(self, row):
            return self.contents[row]

    def builds(*sizes):
        done, labels = [], torch.zeros(len(sizes), dtype=torch.int64)
        images = EncodedImages(Store(*sizes), labels, image_format=ImageFormat(4))
        cached(images, folder, progress=done.append)
        return bool(done)

    assert builds((5, 6), (7, 8))
    assert not builds((5, 6), (7, 8))
    assert builds((7, 8), (5, 6))


def test_building_is_a_scan_too(images, folder, tmp_path):
    (tmp_path / "tree" / "5.png").write_bytes(b"no image")
    (tmp_path / "tree" / "9.png").unlink()
    cached(images, folder)
    found = cached(watched(images, never), folder)
    expected, seen = scan(images), scan(found, workers=2)
    assert seen.problems == expected.problems
    assert seen.modes == expected.modes
    assert torch.equal(seen.width, expected.width)
    assert torch.equal(seen.height, expected.height)
    good, dropped = drop_unreadable(found)
    assert dropped == [
        "5.png: it is not an image in a known format",
        "9.png: it does not exist",
    ]
    rows = torch.arange(38)
    assert torch.equal(good.fetch(rows), drop_unreadable(images)[0].fetch(rows))
    with pytest.raises(ValueError, match=r"5.png cannot be used, because it is not an .*=skip"):
        found.fetch(torch.tensor([4, 5]))
    # Once the file is there, the record of its absence is no longer believed.
    shutil.copy(tmp_path / "tree" / "8.png", tmp_path / "tree" / "9.png")
    assert 9 not in scan(cached(images, folder)).problems


def test_what_may_be_readable_tomorrow_is_not_recorded(images, folder, tmp_path):
    (tmp_path / "tree" / "3.png").unlink()
    (tmp_path / "tree" / "3.png").mkdir()
    with pytest.raises(ValueError, match=r"because of 3.png: it cannot be read \(Is a directory"):
        cached(images, folder)
    assert files(folder) == ["lock"]


@pytest.mark.parametrize("row", [0, 17, 39])
def test_a_flipped_bit_is_found(images, folder, row):
    found = cached(images, folder)
    size = the_file(folder).stat().st_size
    start = size - 40 * 16 * 16 * 3
    with the_file(folder).open("r+b") as file:
        file.seek(start + row * 768 + 100)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 4]))
    others = ALL[torch.arange(40) != row]
    for one in (found, cached(images, folder)):
        assert torch.equal(one.fetch(others), images.fetch(others))
        with pytest.raises(
            ValueError, match=rf"{the_file(folder).name} is damaged at row {row}: del"
        ):
            one.fetch(torch.tensor([row]))
    the_file(folder).unlink()  # as the sentence says
    assert torch.equal(cached(images, folder).fetch(ALL), images.fetch(ALL))


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize("damage", ["empty", "half", "other", "gone"])
def test_a_broken_file_is_no_cache(images, folder, suffix, damage):
    cached(images, folder)
    path = the_file(folder).with_suffix(suffix)
    content = path.read_bytes()
    damaged = {"empty": b"", "half": content[: len(content) // 2], "other": b"PK" + bytes(500)}
    path.unlink() if damage == "gone" else path.write_bytes(damaged[damage])
    done = []
    found = cached(images, folder, progress=done.append)
    assert sum(done) == 40
    assert torch.equal(found.fetch(ALL), images.fetch(ALL))


@needs_fork
def test_two_processes_at_once_build_it_once(images, folder):
    reads, reached, go_on = fork.Value("i", 0), fork.Event(), fork.Event()

    def before(row):
        with reads.get_lock():
            reads.value += 1
        if row == 20:
            reached.set()
            go_on.wait(30)

    def build(results, name):
        results.put((name, cached(watched(images, before), folder).fetch(ALL).numpy()))

    results = fork.Queue()
    first = fork.Process(target=build, args=(results, "first"))
    first.start()
    assert reached.wait(30)
    second = fork.Process(target=build, args=(results, "second"))
    second.start()
    second.join(0.3)
    assert second.is_alive()  # it waits
    assert reads.value == 21
    go_on.set()
    found = dict(results.get(timeout=30) for _ in range(2))
    first.join(30)
    second.join(30)
    assert reads.value == 40
    expected = images.fetch(ALL).numpy()
    assert (found["first"] == expected).all()
    assert (found["second"] == expected).all()
    assert len(files(folder)) == 3


@needs_fork
@pytest.mark.parametrize("moment", ["decoding", "before the index", "before the pixels"])
def test_a_killed_builder_leaves_nothing_that_is_taken_for_a_cache(
    images, folder, monkeypatch, moment
):
    def die(row):
        if row == 35:
            os.kill(os.getpid(), signal.SIGKILL)

    def build():
        if moment == "decoding":
            cached(watched(images, die), folder)
        moves, real = [], os.replace

        def replace_or_die(source, target):
            moves.append(target)
            if len(moves) == (1 if moment == "before the index" else 2):
                die(35)
            real(source, target)

        monkeypatch.setattr(os, "replace", replace_or_die)
        cached(images, folder)

    process = fork.Process(target=build)
    process.start()
    process.join(30)
    assert process.exitcode == -signal.SIGKILL
    assert not list(folder.glob("images-*.npy"))
    assert list(folder.glob(".images-*.tmp"))
    done = []
    found = cached(images, folder, progress=done.append)
    assert sum(done) == 40
    assert torch.equal(found.fetch(ALL), images.fetch(ALL))
    assert len(files(folder)) == 3  # the leftovers are gone


def test_an_interrupted_build_leaves_nothing(images, folder):
    def interrupt(row):
        if row == 35:
            raise KeyboardInterrupt

    for workers in (0, 2):
        with pytest.raises(KeyboardInterrupt):
            cached(watched(images, interrupt), folder, workers=workers)
        assert files(folder) == ["lock"]


def test_too_little_room_is_said_before_writing(images, folder, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 40 * 768 - 1))
    with pytest.raises(ValueError, match=r"needs 0.0 GB in .*, where 0.0 GB are free: make room"):
        cached(watched(images, never), folder)
    assert files(folder) == ["lock"]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 0, 40 * 768))
    cached(images, folder)


def test_a_disk_that_fills_up(images, folder, monkeypatch):
    def full(file):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        ValueError, match=r"could not be written \(No space.*make room or choose an"
    ):
        cached(images, folder)
    assert files(folder) == ["lock"]


def test_a_folder_that_cannot_be_one(images, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"could not be written \(.*choose another folder"):
        cached(images, tmp_path / "file" / "cache")
    with pytest.raises(ValueError, match="must not be negative, got -2"):
        cached(images, tmp_path / "cache", workers=-2)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("kind", ["no module", "no locks"])
def test_goes_without_locks_where_there_are_none(images, folder, monkeypatch, kind):
    def no_locks(file, kind):
        raise OSError(errno.ENOLCK, "No locks available")

    if kind == "no module":
        monkeypatch.setattr(cache, "fcntl", None)
    elif cache.fcntl is not None:
        monkeypatch.setattr(cache.fcntl, "flock", no_locks)
    folder.mkdir(parents=True)
    (folder / ".images-1.npy.1.tmp").write_text("somebody may be building this")
    assert torch.equal(cached(images, folder).fetch(ALL), images.fetch(ALL))
    assert (folder / ".images-1.npy.1.tmp").exists()


def test_foreign_files_in_the_folder_are_left_alone(images, folder):
    folder.mkdir(parents=True)
    foreign = [".images.tmp", ".other.npy.1.tmp", "images-1.npy", "notes.txt"]
    for name in foreign:
        (folder / name).write_text("mine")
    (folder / ".images-0.npy.7.tmp").write_text("a leftover")
    cached(images, folder)
    assert all((folder / name).read_text() == "mine" for name in foreign)
    assert not (folder / ".images-0.npy.7.tmp").exists()
    assert pixel_file.PixelFile(folder / "images-1.npy").holds((40, 16, 16, 3)) is False
