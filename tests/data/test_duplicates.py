from __future__ import annotations

from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mln_lightning.data import EncodedImages, ImageArrays, ImageFiles, ImageFormat
from mln_lightning.data.duplicates import Duplicates, Place, find_duplicates

Grays = list[int]


def arrays(grays: Grays, labels: list[int] | None = None) -> ImageArrays:
    """One image of one colour for each gray value."""
    images = torch.tensor(grays, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 4, 5)
    return ImageArrays(
        images.contiguous(),
        torch.zeros(len(grays), dtype=torch.int64) if labels is None else torch.tensor(labels),
    )


def find(**parts: Grays) -> Duplicates:
    return find_duplicates(
        {name: (arrays(grays), torch.arange(len(grays))) for name, grays in parts.items()}
    )


def places(duplicates: Duplicates) -> list[list[tuple[str, int]]]:
    return [[(place.part, place.row) for place in group] for group in duplicates.groups]


class SizedArrays:
    """Images that know the size of their content, and count how often it is read."""

    def __init__(self, contents: list[bytes]) -> None:
        self.contents = contents
        self.labels = torch.zeros(len(contents), dtype=torch.int64)
        self.clean = self.trusted = None
        self.read: list[int] = []

    def __len__(self) -> int:
        return len(self.contents)

    def fetch(self, rows: torch.Tensor) -> torch.Tensor:
        raise AssertionError("nothing needs to be decoded")

    def select(self, rows: torch.Tensor) -> SizedArrays:
        return SizedArrays([self.contents[row] for row in rows.tolist()])

    def name(self, row: int) -> str:
        return f"image {row}"

    def content(self, row: int) -> bytes:
        self.read.append(row)
        return self.contents[row]

    def size(self, row: int) -> int:
        return len(self.contents[row])


def test_who_has_a_copy_of_what() -> None:
    found = find(train=[1, 2, 3, 2, 4, 5, 5], val=[4, 9], test=[2, 9, 7])
    assert places(found) == [
        [("train", 1), ("train", 3), ("test", 0)],
        [("train", 4), ("val", 0)],
        [("train", 5), ("train", 6)],
        [("val", 1), ("test", 1)],
    ]
    assert found.across() == {("train", "test"): 2, ("train", "val"): 1, ("val", "test"): 1}
    assert found.within() == {"train": 2}
    assert found.copies("train").tolist() == [1, 3, 4]
    assert found.copies("val").tolist() == [1]
    assert found.copies("test").tolist() == []
    assert found.groups[1][1] == Place("val", 0, "row 0")


def test_nothing_twice() -> None:
    found = find(train=[1, 2], test=[3])
    assert (found.groups, found.conflicts, found.across(), found.within()) == ((), 0, {}, {})
    assert found.copies("train").dtype == torch.int64


def test_only_the_rows_asked_for_are_compared() -> None:
    images = arrays([1, 1, 2, 2])
    found = find_duplicates(
        {"train": (images, torch.tensor([0, 2])), "meta": (images, torch.tensor([3]))}
    )
    assert places(found) == [[("train", 2), ("meta", 3)]]


def test_a_row_of_two_parts_is_one_image_of_the_later_one() -> None:
    images = arrays([1, 1, 2])
    found = find_duplicates(
        {"train": (images, torch.arange(3)), "meta": (images, torch.tensor([1, 2]))}
    )
    assert places(found) == [[("train", 0), ("meta", 1)]]
    assert found.copies("train").tolist() == [0]


def test_labels_that_contradict_each_other_are_counted() -> None:
    train = arrays([1, 1, 2, 2, 3, 3], labels=[0, 1, 1, 1, -1, 1])
    assert find_duplicates({"train": (train, torch.arange(6))}).conflicts == 1


def test_images_that_know_their_size_are_read_only_where_sizes_meet() -> None:
    train = SizedArrays([b"a", b"bb", b"ccc", b"dddd", b"ccc"])
    test = SizedArrays([b"ee", b"ffffff"])
    found = find_duplicates({"train": (train, torch.arange(5)), "test": (test, torch.arange(2))})
    assert places(found) == [[("train", 2), ("train", 4)]]
    assert (sorted(train.read), test.read) == ([1, 2, 4], [0])


def test_files_and_arrays_can_be_compared() -> None:
    pixels = arrays([7, 8])
    files = SizedArrays([b"no image at all", pixels.content(1)])
    for parts in ({"train": pixels, "test": files}, {"train": files, "test": pixels}):
        found = find_duplicates({name: (images, torch.arange(2)) for name, images in parts.items()})
        assert places(found) == [[("train", 1), ("test", 1)]]


def test_a_file_that_cannot_be_read_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: ImageArrays, row: int) -> bytes:
        raise FileNotFoundError("There is no file row 0.")

    monkeypatch.setattr(ImageArrays, "content", broken)
    with pytest.raises(FileNotFoundError, match="row 0"):
        find(train=[1, 2])


grays = st.lists(st.integers(0, 5), max_size=8)


@settings(max_examples=60, deadline=None)
@given(train=grays, meta=grays, test=grays)
def test_against_a_comparison_of_all_pairs(train: Grays, meta: Grays, test: Grays) -> None:
    parts = {"train": train, "meta": meta, "test": test}
    found = find(**parts)
    assert found.across() == {
        (first, second): number
        for first, second in combinations(parts, 2)
        if (number := sum(gray in parts[second] for gray in parts[first]))
    }
    assert found.within() == {
        name: number for name, values in parts.items() if (number := len(values) - len(set(values)))
    }
    counts = Counter(train + meta + test)
    assert sorted(map(len, found.groups)) == sorted(n for n in counts.values() if n > 1)
    kept = [gray for row, gray in enumerate(train) if row not in found.copies("train").tolist()]
    assert not set(kept) & {*meta, *test}


def test_files_of_different_sizes_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = {"a": b"1", "b": b"22", "sub/c d": b"22", "ü": b"333", "e": b"44"}
    (tmp_path / "sub").mkdir()
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    images = EncodedImages(
        ImageFiles(tmp_path, list(contents)),
        torch.arange(5),
        image_format=ImageFormat(8),
    ).select(torch.tensor([4, 3, 2, 1]))
    seen = []
    read = ImageFiles.read

    def noted(self: ImageFiles, row: int) -> bytes:
        seen.append(self.name(row))
        return read(self, row)

    monkeypatch.setattr(ImageFiles, "read", noted)
    found = find_duplicates({"train": (images, torch.arange(4))})
    assert [[place.name for place in group] for group in found.groups] == [["sub/c d", "b"]]
    assert found.conflicts == 1
    assert seen == ["e", "sub/c d", "b"]


def test_a_store_that_does_not_know_sizes() -> None:
    class Bytes:
        def __len__(self) -> int:
            return 3

        def name(self, row: int) -> str:
            return f"number {row}"

        def read(self, row: int) -> bytes:
            return b"xyx"[row : row + 1]

    images = EncodedImages(Bytes(), torch.arange(3), image_format=ImageFormat(8))
    found = find_duplicates({"train": (images, torch.arange(3))})
    assert [[place.name for place in group] for group in found.groups] == [["number 0", "number 2"]]
