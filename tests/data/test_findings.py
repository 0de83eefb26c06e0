from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from mln_lightning.batch import UNKNOWN
from mln_lightning.data import DatasetInfo, ImageArrays, Splits
from mln_lightning.data.cut import Cut
from mln_lightning.data.findings import (
    FEWEST_TRUSTED,
    Findings,
    agreement,
    look,
    wanted_per_class,
    wilson,
    without_unreadable,
)
from mln_lightning.data.parts import BatchSource, Part, Partition
from mln_lightning.data.scan import Scan
from mln_lightning.seeding import generator
from mln_lightning.sizes import SampleSize

INFO = DatasetInfo("mine", 3, (1, 4, 4), (0.5,), (0.25,), classes=("ant", "bee", "cat"))


def arrays(
    labels: list[int], clean: list[int] | None = None, trusted: list[bool] | None = None, seed=0
) -> ImageArrays:
    shape = (len(labels), 1, 4, 4)
    return ImageArrays(
        torch.randint(256, shape, dtype=torch.uint8, generator=generator(seed)),
        torch.tensor(labels),
        None if clean is None else torch.tensor(clean),
        None if trusted is None else torch.tensor(trusted),
    )


def scanned(images: ImageArrays, problems: dict[int, str] | None = None) -> Scan:
    size = torch.full((len(images),), 4)
    return Scan(size, size, {"L": len(images)}, problems or {})


def found(splits: Splits, cut: Cut | None = None, scans: dict[str, Scan] | None = None) -> Findings:
    scans = scans or {name: scanned(part) for name, part in splits.parts().items()}
    used = without_unreadable(splits, scans)
    return look(splits, scans, INFO, cut or Cut(), used=used)


def test_parts_and_their_classes() -> None:
    train = arrays([0, 0, 2, -1, 2, 2], [0, 1, 2, -1, -1, -1])
    findings = found(
        Splits(train, test=arrays([1, 1, 0], seed=1), also_test={"web": arrays([2], seed=2)})
    )
    assert list(findings.parts) == ["train", "test", "web"]
    assert findings.parts["train"].counts.tolist() == [2, 0, 3]
    assert findings.parts["train"].unlabelled == 1
    assert findings.parts["test"].counts.tolist() == [1, 2, 0]
    assert findings.parts["web"].images == 1
    assert findings.trusted.tolist() == [1, 1, 1]
    assert findings.imbalance == math.inf
    assert found(Splits(arrays([0, 1, 1, 2, 2, 2]))).imbalance == 3
    assert found(Splits(arrays([-1, -1]))).imbalance == 1


def test_labels_with_noise_are_compared_instead() -> None:
    train = arrays([0, 1, 2])
    part = Part(BatchSource(train, torch.tensor([0, 1, 1]), train.labels), torch.arange(2))
    sets = Partition(train=part, val=part, meta=part, test=None)
    splits = Splits(train)
    findings = look(splits, {"train": scanned(train)}, INFO, Cut(), used=splits, sets=sets)
    assert findings.agreement is not None
    assert findings.agreement.pairs == ((2, 1, 1),)
    assert findings.trusted.tolist() == [1, 1, 1]
    assert findings.parts["train"].counts.tolist() == [1, 1, 1]
    assert findings.sets == {"train": 2, "val": 2, "meta": 2}


def test_sizes_and_modes_are_those_of_the_readable_images() -> None:
    train = arrays([0, 1, 2, 0, 1])
    scan = Scan(
        torch.tensor([10, 40, 0, 20, 30]),
        torch.tensor([10, 10, 0, 50, 10]),
        {"RGB": 3, "L": 1},
        {2: "row 2: it is truncated"},
    )
    part = found(Splits(train), scans={"train": scan}).parts["train"]
    assert part.sizes == ((10, 10), (30, 10), (20, 50))
    assert part.modes == {"L": 1, "RGB": 3}
    assert part.unreadable == ("row 2: it is truncated",)
    assert part.counts.tolist() == [2, 2, 1]


def test_a_part_without_a_readable_image() -> None:
    train, meta = arrays([0, 1, 2]), arrays([0], seed=1)
    scans = {"train": scanned(train), "meta": scanned(meta, {0: "broken"})}
    assert found(Splits(train, meta=meta), scans=scans).parts["meta"].sizes == ()


def test_unreadable_images_are_no_copies_and_can_be_left_out() -> None:
    train = arrays([0, 1, 2])
    splits = Splits(train, test=train.select(torch.tensor([0, 1])))
    scans = {"train": scanned(train, {0: "broken"}), "test": scanned(splits.test)}
    assert found(splits, scans=scans).duplicates.across() == {("train", "test"): 1}
    used = without_unreadable(splits, scans)
    assert used.train.labels.tolist() == [1, 2]
    assert used.test is splits.test


def test_agreement_counts_only_images_of_which_both_are_known() -> None:
    observed = torch.tensor([0, 1, 1, 2, -1, 2, 1, 0])
    clean = torch.tensor([0, 0, 0, 1, 1, -1, 1, 0])
    result = agreement(observed, clean, 3)
    assert result is not None
    assert (result.known, result.wrong) == (6, 3)
    assert result.pairs == ((0, 1, 2), (1, 2, 1))
    assert agreement(observed, torch.full((8,), UNKNOWN), 3) is None


@given(st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_interval_against_scipy(counts: tuple[int, int]) -> None:
    interval = binomtest(*counts).proportion_ci(0.95, method="wilson")
    assert wilson(*counts) == pytest.approx((interval.low, interval.high), abs=1e-6)


def test_advice_on_how_many_to_verify_keeps_its_promise() -> None:
    for trials, points in ((100, 0.10), (400, 0.05)):
        for hits in range(trials + 1):
            low, high = wilson(hits, trials)
            assert (high - low) / 2 <= points


def test_who_can_be_trusted() -> None:
    labels, clean = [0, 1, 2, 2], [0, 1, 1, -1]
    train = arrays(labels, clean, [True, False, True, False])
    meta, test = arrays([2, 2], seed=1), arrays([0, 0, 1], seed=2)
    assert found(Splits(arrays(labels, clean))).trusted.tolist() == [1, 2, 0]
    assert found(Splits(train)).trusted.tolist() == [1, 1, 0]
    assert found(Splits(train, meta=meta)).trusted.tolist() == [0, 0, 2]
    assert found(Splits(train, test=test), Cut(meta_from="test")).trusted.tolist() == [2, 1, 0]
    assert found(Splits(arrays(labels))).trusted.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("num_meta", "num_test", "wanted"),
    [
        (None, None, (FEWEST_TRUSTED, 0)),
        (3, None, (FEWEST_TRUSTED, 0)),
        (60, None, (FEWEST_TRUSTED, 0)),
        (61, None, (21, 0)),  # more than there are
        ("20/class", None, (20, 0)),
        ("2/class", None, (2, 0)),
        ("20/class", "20%", (20, 5)),
        (None, "50%", (FEWEST_TRUSTED, FEWEST_TRUSTED)),
        (None, 30, (FEWEST_TRUSTED, 10)),
        (None, "4/class", (FEWEST_TRUSTED, 4)),
    ],
)
def test_how_many_of_each_class_the_sizes_take(
    num_meta: object, num_test: object, wanted: tuple[int, int]
) -> None:
    sizes = {
        name: None if value is None else SampleSize.parse(name, value)
        for name, value in (("num_meta", num_meta), ("num_test", num_test))
    }
    train = arrays([0, 1, 2])
    trusted = torch.tensor([20, 20, 20])
    assert wanted_per_class(Splits(train), Cut(**sizes), trusted) == wanted
    without_test = Cut(num_meta=sizes["num_meta"])
    assert wanted_per_class(Splits(train, test=train), Cut(**sizes), trusted) == wanted_per_class(
        Splits(train), without_test, trusted
    )


def test_what_is_still_to_be_verified() -> None:
    findings = found(Splits(arrays([0] * 8 + [1] * 8, [0] * 7 + [1] * 8 + [2])))
    assert findings.missing_trusted.tolist() == [0, 0, 5]
