"""Who is trusted, who is hidden, and who is left out."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mln_lightning.batch import UNKNOWN
from mln_lightning.data import DatasetInfo, ImageArrays, Splits
from mln_lightning.data.cut import Cut
from mln_lightning.data.notes import notes, without_duplicates
from mln_lightning.data.partition import partition
from mln_lightning.data.split import balanced_split, stratified_split
from mln_lightning.noise import ClassConditionalNoise, symmetric
from mln_lightning.seeding import generator
from mln_lightning.sizes import SampleSize

INFO = DatasetInfo("pets", 3, (1, 4, 4), (0.5,), (0.5,), classes=("cat", "dog", "emu"))


def size(value):
    return SampleSize.parse("n", value)


def images(number, seed):
    return torch.randint(256, (number, 1, 4, 4), dtype=torch.uint8, generator=generator(seed))


def own_photos(verified=60, unlabelled=0):
    """300 photos, the first of them verified, every fifth of those with another label."""
    labels = torch.arange(300) % 3
    clean = torch.full_like(labels, UNKNOWN)
    clean[:verified] = labels[:verified]
    clean[:verified:5] = (labels[:verified:5] + 1) % 3
    labels[300 - unlabelled :] = UNKNOWN
    return Splits(ImageArrays(images(300, 1), labels, clean, clean != UNKNOWN))


def cut_of(splits, **sizes):
    return partition(splits, INFO, None, Cut(**sizes), data_seed=0)


def test_all_trusted_photos_become_the_meta_set():
    splits = own_photos()
    parts = cut_of(splits, num_val=size("10%"))
    assert parts.meta.index.tolist() == list(range(60))
    assert torch.equal(parts.meta.labels, splits.train.clean[:60])
    assert parts.test is None
    rows = torch.cat([part.index for part in parts.named().values()])
    assert sorted(rows.tolist()) == list(range(300))
    assert len(parts.val) == 24
    # What is known of the truth is in the meta set; the rest is unknown to metrics too.
    assert bool((parts.train.clean == UNKNOWN).all())
    assert torch.equal(parts.train.labels, splits.train.labels[parts.train.index])


def test_a_test_set_from_the_trusted_photos_leaves_every_class_in_the_meta_set():
    splits = own_photos()
    parts = cut_of(splits, num_test=size("20%"))
    assert (len(parts.test), len(parts.meta)) == (12, 48)
    assert torch.equal(parts.test.labels, splits.train.clean[parts.test.index])
    assert not set(parts.test.index.tolist()) & set(parts.meta.index.tolist())
    greedy = cut_of(splits, num_test=size("99%"))
    assert greedy.meta.labels.bincount().tolist() == [1, 1, 1]


def test_a_test_set_from_the_own_meta_set_where_nobody_else_is_trusted():
    photos = own_photos().train
    splits = Splits(ImageArrays(photos.images, photos.labels), meta=own_photos().train)
    parts = cut_of(splits, num_test=size("20%"), num_val=size("10%"))
    sizes = {name: len(part) for name, part in parts.named().items()}
    assert sizes == {"train": 270, "val": 30, "meta": 240, "test": 60}
    assert not set(parts.test.index.tolist()) & set(parts.meta.index.tolist())
    assert parts.test.source.images is parts.meta.source.images is splits.meta
    assert torch.equal(parts.test.labels, splits.meta.labels[parts.test.index])
    greedy = cut_of(splits, num_test=size("99%"))
    assert greedy.meta.labels.bincount().tolist() == [1, 1, 1]


def test_no_test_set_where_nothing_is_left_for_it(tmp_path):
    photos = own_photos().train
    splits = Splits(ImageArrays(photos.images, photos.labels))
    (tmp_path / "list.txt").write_text("0\n1\n2\n")
    parts = cut_of(splits, meta_list=str(tmp_path / "list.txt"), num_test=size("20%"))
    assert parts.test is None
    assert parts.meta.index.tolist() == [0, 1, 2]
    said = notes(splits, parts, Cut(num_test=size("20%")), [])
    assert len(said) == 1
    assert said[0].startswith("no test set:")


def test_a_share_leaves_an_own_validation_set_whole():
    splits = own_photos()._replace(val=own_photos().train)
    assert len(cut_of(splits, num_val=size("10%")).val) == 300
    assert len(cut_of(splits, num_val=size("30")).val) == 30


def test_trusted_samples_that_are_not_needed_stay_in_training():
    parts = cut_of(own_photos(), num_meta=size("5/class"))
    assert parts.meta.labels.bincount().tolist() == [5, 5, 5]
    assert len(parts.train) == 285
    left = parts.train.clean != UNKNOWN
    assert int(left.sum()) == 45


def test_only_trusted_samples_are_drawn_even_if_more_classes_are_known():
    labels = torch.arange(90) % 3
    trusted = torch.arange(90) >= 60
    splits = Splits(ImageArrays(images(90, 2), labels, labels, trusted))
    parts = partition(
        splits,
        INFO,
        ClassConditionalNoise(symmetric(3, 0.4)),
        Cut(num_meta=size(12)),
        data_seed=3,
    )
    assert int(parts.meta.index.min()) >= 60
    assert torch.equal(parts.meta.labels, labels[parts.meta.index])


def test_meta_set_in_training_too():
    splits = own_photos()
    parts = cut_of(splits, num_meta=size(9), meta_in_train=True)
    assert len(parts.train) == 300
    both = parts.meta.index
    assert torch.equal(parts.train.source.labels[both], splits.train.labels[both])
    assert not torch.equal(parts.train.source.labels[:60], parts.meta.source.labels[:60])


def test_meta_set_by_hand(tmp_path):
    listed = tmp_path / "trusted photos.txt"
    listed.write_text("200\n7\n\n9\n11\n")
    splits = own_photos()
    parts = cut_of(splits, meta_list=str(listed), num_meta=size(3))
    assert parts.meta.index.tolist() == [7, 9, 11, 200]
    # Verified images have their verified label, the other one that is listed its observed one.
    assert parts.meta.labels.tolist() == [1, 0, 2, 2]
    assert not set(parts.train.index.tolist()) & {7, 9, 11, 200}
    tested = cut_of(splits, meta_list=str(listed), num_test=size("50%")).test
    assert len(tested) == 28  # of the 57 verified ones that are not in the list
    assert not set(tested.index.tolist()) & {7, 9, 11, 200}
    listed.write_text("row 7\nrow 9\nrow 11\n")
    assert cut_of(splits, meta_list=str(listed)).meta.index.tolist() == [7, 9, 11]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1\n300\n", "line 2: '300' is no training image; give rows from 0 to 299"),
        ("1\nfido.jpg\n", "line 1: '1' is no training image"),
        ("5\n6\n5\n", "line 3: '5' is listed in line 1 too"),
        ("0\n299\n", "line 2: '299' has no label to trust"),
        ("\n\n", "lists no image"),
        ("0\n3\n6\n", "none of 'cat', 'emu'|at least one sample of each"),
    ],
)
def test_bad_lists(tmp_path, text, message):
    listed = tmp_path / "list.txt"
    listed.write_text(text)
    with pytest.raises(ValueError, match=message):
        cut_of(own_photos(unlabelled=10), meta_list=str(listed))
    with pytest.raises(FileNotFoundError, match="no list of meta images"):
        cut_of(own_photos(), meta_list=str(tmp_path / "missing.txt"))


def test_meta_set_from_the_test_set_as_published():
    labels = torch.arange(120) % 3
    splits = Splits(
        ImageArrays(images(120, 3), labels, labels), ImageArrays(images(60, 4), labels[:60])
    )
    cut = Cut(num_meta=size(30), meta_from="test")
    parts = partition(splits, INFO, None, cut, data_seed=0)
    assert (len(parts.train), len(parts.meta), len(parts.test)) == (120, 30, 30)
    assert sorted([*parts.meta.index.tolist(), *parts.test.index.tolist()]) == list(range(60))
    assert any("TEST" in line for line in notes(splits, parts, cut, []))
    with pytest.raises(ValueError, match="needs a test set"):
        cut_of(own_photos(), meta_from="test")
    with pytest.raises(ValueError, match="asks for 61 samples, the source's own meta set has 60"):
        partition(splits, INFO, None, Cut(num_meta=size(61), meta_from="test"), data_seed=0)
    with pytest.raises(ValueError, match="contradict"):
        Cut(meta_from="test", meta_list="x")


def test_labels_are_hidden_by_number_and_where_there_are_none():
    splits = own_photos(unlabelled=40)
    parts = cut_of(splits, num_val=size(20), num_unlabelled=size(50))
    assert int((parts.train.labels == UNKNOWN).sum()) == 90
    assert bool((parts.val.labels != UNKNOWN).all())
    hidden = parts.train.index[parts.train.labels == UNKNOWN]
    given_before = splits.train.labels[hidden]
    assert given_before[given_before != UNKNOWN].bincount().tolist() == pytest.approx(
        [17] * 3, abs=1
    )
    assert bool((splits.train.labels[:260] != UNKNOWN).all())  # the source is not changed


def test_the_training_set_can_be_made_smaller_and_nothing_else_changes():
    splits = own_photos(unlabelled=40)
    whole, some = (cut_of(splits, num_val=size(20), num_train=n) for n in (None, size(30)))
    assert set(some.train.index.tolist()) < set(whole.train.index.tolist())
    kept = some.train.labels
    assert kept[kept != UNKNOWN].bincount().tolist() == [10, 10, 10]
    assert int((kept == UNKNOWN).sum()) == 40
    for name in ("val", "meta"):
        assert torch.equal(some.named()[name].index, whole.named()[name].index)


def test_noise_needs_labels():
    noise = ClassConditionalNoise(symmetric(3, 0.4))
    with pytest.raises(ValueError, match="without a label, and 40 have none: use noise=none"):
        partition(own_photos(unlabelled=40), INFO, noise, Cut(), data_seed=0)


def test_noise_on_own_photos_starts_from_what_is_known():
    splits = own_photos()
    parts = partition(splits, INFO, ClassConditionalNoise(symmetric(3, 0.0)), Cut(), data_seed=0)
    assert torch.equal(parts.train.source.labels[:60], splits.train.clean[:60])
    assert torch.equal(parts.train.source.labels[60:], splits.train.labels[60:])


def test_what_cannot_be_had():
    with pytest.raises(ValueError, match="61 samples, only 60 training images are trusted"):
        cut_of(own_photos(), num_meta=size(61))
    photos = own_photos().train
    without_emus = Splits(photos.select((photos.clean != 2).nonzero().squeeze(1)))
    with pytest.raises(ValueError, match="has none of 'emu': verify an image of each"):
        cut_of(without_emus)
    with pytest.raises(ValueError, match="clean labels of the training images are not known"):
        cut_of(own_photos(verified=0))
    with pytest.raises(ValueError, match="There are 2 samples of class dog to draw from, not 5"):
        balanced_split(torch.tensor([0] * 9 + [1] * 2), 5, ("cat", "dog"), generator=generator(0))


def test_what_a_user_is_told():
    splits = own_photos()
    cut = Cut()
    parts = partition(splits, INFO, None, cut, data_seed=0)
    told = " | ".join(notes(splits, parts, cut, ["a.jpg: truncated"]))
    assert "unreadable images left out: 1" in told
    assert "12 of 60 verified images carry another observed label" in told
    assert "no test set" in told


def test_copies_are_reported_and_dropped_from_the_earlier_set():
    labels = torch.arange(60) % 3
    pool, tests = images(60, 5), images(30, 6)
    pool[4], pool[8], tests[5] = tests[0], tests[1], tests[0]
    splits = Splits(ImageArrays(pool, labels, labels), ImageArrays(tests, labels[:30]))
    parts = partition(splits, INFO, None, Cut(num_meta=size(6)), data_seed=1)
    same, told = without_duplicates(parts, drop=False)
    assert same is parts
    counts = {
        name: int(torch.isin(torch.tensor([4, 8]), part.index).sum())
        for name, part in list(parts.named().items())[:3]
    }
    assert len(told) == sum(count > 0 for count in counts.values())
    fewer, told = without_duplicates(parts, drop=True)
    for name, count in counts.items():
        assert len(fewer.named()[name]) == len(parts.named()[name]) - count
    assert len(fewer.test) == 30
    assert all("left out" in line for line in told)


def test_a_set_of_copies_only():
    labels = torch.arange(30) % 3
    pool = images(30, 7)
    splits = Splits(ImageArrays(pool, labels, labels), ImageArrays(pool, labels))
    parts = partition(splits, INFO, None, Cut(num_meta=size(6)), data_seed=1)
    with pytest.raises(ValueError, match="Every image of the train set is in a later set too"):
        without_duplicates(parts, drop=True)


@given(st.lists(st.integers(1, 40), min_size=2, max_size=6), st.integers(0, 2**31), st.data())
@settings(max_examples=60, deadline=None)
def test_every_class_gets_a_sample(counts, seed, data):
    strata = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    number = data.draw(st.integers(len(counts), len(strata)))
    drawn, rest = stratified_split(strata, number, generator=generator(seed), every_class=True)
    assert len(drawn) == number
    assert sorted([*drawn.tolist(), *rest.tolist()]) == list(range(len(strata)))
    assert int(strata[drawn].bincount(minlength=len(counts)).min()) >= 1


@given(st.lists(st.integers(3, 9), min_size=2, max_size=5), st.integers(0, 3), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_so_many_of_each_class(counts, number, seed):
    strata = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    drawn, _ = balanced_split(strata, number, "abcde"[: len(counts)], generator=generator(seed))
    assert strata[drawn].bincount(minlength=len(counts)).tolist() == [number] * len(counts)
