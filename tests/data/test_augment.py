import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from scipy.stats import chisquare

from mln_lightning.data import Normalize, RandomCropFlip
from mln_lightning.seeding import generator


def images(size=16, shape=(3, 8, 10), seed=0):
    return torch.randint(256, (size, *shape), dtype=torch.uint8, generator=generator(seed))


def reference(image, padding, mode, dy, dx, mirrored):
    """One sample at a time, with torch's own padding."""
    padded = image.float()
    if padding:
        mode = {"zeros": "constant", "reflect": "reflect"}[mode]
        padded = F.pad(padded[None], (padding,) * 4, mode=mode)[0]
    cut = padded[:, dy : dy + image.shape[1], dx : dx + image.shape[2]]
    return (cut.flip(-1) if mirrored else cut).to(torch.uint8)


@pytest.mark.parametrize("mode", ["zeros", "reflect"])
@pytest.mark.parametrize("padding", [0, 1, 4])
@pytest.mark.parametrize("flip", [True, False])
def test_equals_the_sample_by_sample_reference(mode, padding, flip):
    batch, index = images(), torch.arange(40, 56)
    before = batch.clone()
    augment = RandomCropFlip(padding, flip, mode)
    result = augment(batch, index, seed=3, epoch=2)
    assert torch.equal(batch, before)
    assert result.dtype == torch.uint8
    draws = zip(*augment.draws(index, seed=3, epoch=2), strict=True)
    for image, one, (dy, dx, mirrored) in zip(batch, result, draws, strict=True):
        expected = reference(image, padding, mode, int(dy), int(dx), flip and bool(mirrored))
        assert torch.equal(one, expected)


def test_function_of_seed_epoch_and_index_only():
    batch, index = images(), torch.arange(16)
    augment = RandomCropFlip(2)
    state = torch.get_rng_state()
    whole = augment(batch, index, seed=0, epoch=5)
    assert torch.equal(torch.get_rng_state(), state)
    order = torch.randperm(16, generator=generator(1))
    assert torch.equal(augment(batch[order], index[order], seed=0, epoch=5), whole[order])
    for row in range(16):
        one = augment(batch[row : row + 1], index[row : row + 1], seed=0, epoch=5)
        assert torch.equal(one[0], whole[row])
    for other in ({"seed": 1, "epoch": 5}, {"seed": 0, "epoch": 6}):
        assert not torch.equal(augment(batch, index, **other), whole)


def test_draws_are_uniform_and_independent():
    augment = RandomCropFlip(4)
    dy, dx, mirrored = augment.draws(torch.arange(81 * 2 * 200), seed=0, epoch=0)
    cells = (dy * 9 + dx) * 2 + mirrored.long()
    assert chisquare(cells.bincount(minlength=162)).pvalue > 1e-4
    # The same sample in successive epochs.
    joint = torch.stack([augment.draws(torch.tensor([7]), seed=0, epoch=e)[0] for e in range(4001)])
    pairs = joint[:-1] * 9 + joint[1:]
    assert chisquare(pairs.flatten().bincount(minlength=81)).pvalue > 1e-4


def test_normalize():
    batch = images(shape=(3, 5, 5))
    mean, std = (0.1, 0.5, 0.9), (0.2, 0.3, 0.4)
    expected = (batch.double() / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(
        3, 1, 1
    )
    result = Normalize(mean, std)(batch)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result.double(), expected, atol=1e-5, rtol=1e-5)


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match="not be negative, got -1"):
        RandomCropFlip(-1)
    with pytest.raises(ValueError, match="'zeros' or 'reflect', got 'edge'"):
        RandomCropFlip(1, mode="edge")
