import pytest
import torch
from scipy.stats import chisquare, kstest

from mln_lightning.data import RandomCropFlip, StrongAugment
from mln_lightning.data.image_ops import Amounts, recolour, warp
from mln_lightning.seeding import generator

MANY = torch.arange(14 * 1000)
SIGNED, SWITCHES = Amounts._fields[:9], ("autocontrast", "equalize", "identity")


def images(size=16, shape=(3, 12, 10), seed=0):
    return torch.randint(256, (size, *shape), dtype=torch.uint8, generator=generator(seed))


@pytest.mark.parametrize("shape", [(3, 12, 10), (1, 9, 9), (3, 32, 32)])
def test_function_of_seed_epoch_and_index_only(shape):
    batch, index = images(shape=shape), torch.arange(40, 56)
    before, state = batch.clone(), torch.get_rng_state()
    augment = StrongAugment(num_ops=3, cutout=4)
    whole = augment(batch, index, seed=0, epoch=5)
    assert whole.dtype == torch.uint8
    assert whole.shape == batch.shape
    assert torch.equal(batch, before)
    assert torch.equal(torch.get_rng_state(), state)
    order = torch.randperm(16, generator=generator(1))
    assert torch.equal(augment(batch[order], index[order], seed=0, epoch=5), whole[order])
    for start, stop in ((0, 1), (1, 4), (4, 9), (9, 16)):
        part = augment(batch[start:stop], index[start:stop], seed=0, epoch=5)
        assert torch.equal(part, whole[start:stop])
    for other in ({"seed": 1, "epoch": 5}, {"seed": 0, "epoch": 6}):
        assert not torch.equal(augment(batch, index, **other), whole)


def test_images_are_changed_as_drawn():
    batch, index = images(64), torch.arange(64)
    augment = StrongAugment(num_ops=4, magnitude=0.8, fill=30)
    drawn = augment.draws(index, seed=2, epoch=1)
    expected = warp(recolour(batch, drawn), drawn, fill=30)
    assert torch.equal(augment(batch, index, seed=2, epoch=1), expected)


@pytest.mark.parametrize("num_ops", [0, 1, 2, 5, 14])
def test_as_many_kinds_as_asked_for_each_alike_often(num_ops):
    drawn = torch.stack(StrongAugment(num_ops).draws(MANY, seed=0, epoch=0)) != 0
    assert (drawn.sum(0) == num_ops).all()
    if 0 < num_ops < 14:
        assert chisquare(drawn.sum(1)).pvalue > 1e-4


def test_pairs_of_kinds_are_independent_of_each_other_and_the_epoch():
    augment = StrongAugment(1)
    first, second = (
        torch.stack(augment.draws(MANY, seed=0, epoch=epoch)).ne(0).int().argmax(0)
        for epoch in (0, 1)
    )
    assert chisquare((first * 14 + second).bincount(minlength=196)).pvalue > 1e-4
    neighbours = first[:-1] * 14 + first[1:]
    assert chisquare(neighbours.bincount(minlength=196)).pvalue > 1e-4


def test_strengths_are_uniform_up_to_the_magnitude():
    drawn = StrongAugment(14, magnitude=0.5).draws(MANY, seed=0, epoch=0)._asdict()
    for kind, amounts in drawn.items():
        if kind in SWITCHES:
            assert (amounts == 1).all()
            continue
        low = -0.5 if kind in SIGNED else 0.0
        assert kstest(amounts.numpy(), "uniform", args=(low, 0.5 - low)).pvalue > 1e-4
    # Strength and sign of one kind say nothing about those of the next.
    cells = (drawn["rotate"] > 0).long() * 2 + (drawn["shear_x"].abs() > 0.25).long()
    assert chisquare(cells.bincount(minlength=4)).pvalue > 1e-4


def test_nothing_asked_for_changes_nothing():
    batch, index = images(), torch.arange(16)
    assert torch.equal(StrongAugment(0)(batch, index, seed=0, epoch=0), batch)
    # The three switches have no strength.
    weak = StrongAugment(2, magnitude=0.0)
    switched = weak.draws(index, seed=0, epoch=0)
    kept = (switched.autocontrast + switched.equalize) == 0
    assert 0 < kept.sum() < 16
    assert torch.equal(weak(batch, index, seed=0, epoch=0)[kept], batch[kept])


@pytest.mark.parametrize("side", [1, 4, 5, 50])
def test_cutout_is_one_square_anywhere(side):
    size, shape = 2000, (1, 6, 9)
    batch = torch.zeros(size, *shape, dtype=torch.uint8)
    index = torch.arange(size)
    holes = StrongAugment(0, cutout=side, fill=255)(batch, index, seed=0, epoch=0)[:, 0] == 255
    rows, columns = holes.any(2), holes.any(1)
    assert torch.equal(holes, rows.unsqueeze(2) & columns.unsqueeze(1))
    for lines in (rows, columns):
        assert ((lines[:, 1:] != lines[:, :-1]).sum(1) <= 2).all()  # in one piece
        assert lines.sum(1).max() == min(side, lines.shape[1])
        assert lines.sum(1).min() >= min(lines.shape[1], side // 2)  # cut off at the border
    if side == 1:
        assert chisquare(holes.flatten(1).int().argmax(1).bincount(minlength=54)).pvalue > 1e-4


def test_another_augmentation_first():
    batch, index = images(), torch.arange(16)
    crop = RandomCropFlip(2)
    both = StrongAugment(2, cutout=3, first=crop)(batch, index, seed=1, epoch=4)
    cropped = crop(batch, index, seed=1, epoch=4)
    expected = StrongAugment(2, cutout=3)(cropped, index, seed=1, epoch=4)
    assert torch.equal(both, expected)


def test_bad_options_are_refused():
    for options, message in (
        ({"num_ops": 15}, "between 0 and the 14 kinds of operations, got 15"),
        ({"num_ops": -1}, "between 0 and the 14 kinds of operations, got -1"),
        ({"magnitude": 1.1}, "between 0 and 1, got 1.1"),
        ({"magnitude": float("nan")}, "between 0 and 1, got nan"),
        ({"cutout": -2}, "not be negative, got -2"),
        ({"fill": 256}, "between 0 and 255, got 256"),
    ):
        with pytest.raises(ValueError, match=message):
            StrongAugment(**options)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_never_waits_for_the_device_and_gives_the_same():
    batch, index = images(256, (3, 32, 32)), torch.arange(256)
    augment = StrongAugment(4, cutout=8, first=RandomCropFlip(2))
    there, rows = batch.cuda(), index.cuda()
    augment(there, rows, seed=0, epoch=0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = augment(there, rows, seed=0, epoch=0)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    off = (found.cpu().int() - augment(batch, index, seed=0, epoch=0).int()).abs()
    assert off.max() <= 1
    assert (off > 0).float().mean() < 0.001
