import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mln_lightning.datasets import blobs, digits
from mln_lightning.noise import (
    ClassConditionalNoise,
    asymmetric,
    empirical_transition,
    noise_rate,
    symmetric,
    within_superclass,
)
from mln_lightning.seeding import generator

FLIPS = {2: 7, 3: 8, 5: 6, 6: 5, 7: 1}
DATA = {
    "digits": (10, FLIPS, lambda: digits().train.labels),
    "blobs": (4, {0: 1, 2: 3}, lambda: blobs().train.labels),
    "cifar100-like": (
        100,
        {c: (c + 1) % 100 for c in range(100)},
        lambda: torch.arange(50000) % 100,
    ),
    "unbalanced": (3, {0: 1}, lambda: torch.tensor([0] * 7 + [1] * 500 + [2])),
}


def test_matrices_by_hand():
    third = 0.3 / 3
    expected = [[0.7 if i == j else third for j in range(4)] for i in range(4)]
    torch.testing.assert_close(symmetric(4, 0.3), torch.tensor(expected, dtype=torch.float64))
    flipped = [[0.6, 0.4, 0], [0, 1, 0], [0.4, 0, 0.6]]
    torch.testing.assert_close(
        asymmetric(3, 0.4, {0: 1, 2: 0}), torch.tensor(flipped, dtype=torch.float64)
    )
    assert torch.equal(asymmetric(3, 0.4, {"0": "1", "2": 0}), asymmetric(3, 0.4, {0: 1, 2: 0}))
    assert torch.equal(symmetric(7, 0.0), torch.eye(7, dtype=torch.float64))


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("rate", [0.0, 0.05, 0.2, 0.4, 0.8, 0.95])
@pytest.mark.parametrize("kind", ["sym", "asym"])
def test_exact_noise_flips_exact_counts(data, rate, kind):
    num_classes, flips, read = DATA[data]
    clean = read()
    matrix = symmetric(num_classes, rate) if kind == "sym" else asymmetric(num_classes, rate, flips)
    before = clean.clone()
    observed = ClassConditionalNoise(matrix)(clean, generator=generator(0))
    assert torch.equal(clean, before)
    assert observed.dtype == torch.int64
    sizes = clean.bincount(minlength=num_classes).double()
    counts = torch.zeros(num_classes, num_classes, dtype=torch.float64)
    np.add.at(counts.numpy(), (clean.numpy(), observed.numpy()), 1)
    assert bool(((counts - sizes[:, None] * matrix).abs() < 1).all())
    assert bool((counts[matrix == 0] == 0).all())
    flipping = num_classes if kind == "sym" else len(flips)
    share = 1.0 if kind == "sym" else float(sizes[list(flips)].sum() / sizes.sum())
    assert abs(noise_rate(observed, clean) - rate * share) < flipping / len(clean)
    torch.testing.assert_close(
        empirical_transition(observed, clean, num_classes), counts / sizes[:, None]
    )


def test_small_rates_reach_every_one_of_100_classes():
    # Rounding 500 · 0.05 / 99 down would leave all labels clean.
    clean = torch.arange(50000) % 100
    observed = ClassConditionalNoise(symmetric(100, 0.05))(clean, generator=generator(0))
    assert noise_rate(observed, clean) == pytest.approx(0.05)
    # The 25 flips of a class are dealt by lot, so no class collects them: mean 25, deviation 4.3.
    arrivals = observed[observed != clean].bincount(minlength=100)
    assert int(arrivals.max()) < 50


@pytest.mark.parametrize("rate", [0.001, 0.01, 0.05, 0.2])
@pytest.mark.parametrize("size", [7, 18, 20, 500])
def test_small_rates_on_small_classes_do_not_vanish(rate, size):
    # Each class alone would be rounded to no flip at all, or all of them in one direction.
    clean = torch.arange(100 * size) % 100
    for matrix in (
        symmetric(100, rate),
        within_superclass(100, rate, [c // 5 for c in range(100)]),
    ):
        observed = ClassConditionalNoise(matrix)(clean, generator=generator(0))
        assert int((observed != clean).sum()) == round(100 * size * rate)


@given(st.integers(2, 6), st.lists(st.integers(0, 5), max_size=60), st.integers(0, 9))
def test_any_matrix_keeps_counts_to_within_one(num_classes, labels, seed):
    clean = torch.tensor([c % num_classes for c in labels], dtype=torch.int64)
    matrix = torch.rand(num_classes, num_classes, dtype=torch.float64, generator=generator(seed))
    matrix /= matrix.sum(dim=1, keepdim=True)
    observed = ClassConditionalNoise(matrix)(clean, generator=generator(seed, 1))
    for i in range(num_classes):
        members = observed[clean == i]
        counts = members.bincount(minlength=num_classes)
        assert bool(((counts - len(members) * matrix[i]).abs() < 1).all())
    stays = (clean.bincount(minlength=num_classes) * matrix.diagonal()).sum()
    assert abs(int((observed == clean).sum()) - float(stays)) <= 0.5 + 1e-6


def test_independent_draws_follow_the_matrix():
    matrix = asymmetric(4, 0.3, {0: 2, 1: 3})
    clean = torch.arange(40000) % 4
    observed = ClassConditionalNoise(matrix, exact=False)(clean, generator=generator(5))
    measured = empirical_transition(observed, clean, 4)
    # Standard deviation of a cell: sqrt(0.3 · 0.7 / 10000) = 0.0046.
    torch.testing.assert_close(measured, matrix, atol=0.023, rtol=0)
    assert not torch.equal(measured, matrix)


@pytest.mark.parametrize("exact", [True, False])
def test_labels_depend_on_the_generator_only(exact):
    noise = ClassConditionalNoise(symmetric(10, 0.4), exact=exact)
    clean = torch.arange(500) % 10
    first = noise(clean, generator=generator(3))
    with torch.random.fork_rng():
        torch.manual_seed(2)
        assert torch.equal(first, noise(clean, generator=generator(3)))
    assert not torch.equal(first, noise(clean, generator=generator(4)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: symmetric(10, 1.0), "at least 0 and below 1, got 1.0"),
        (lambda: symmetric(10, -0.1), "at least 0 and below 1"),
        (lambda: symmetric(1, 0.1), "at least 2 classes"),
        (lambda: asymmetric(8, 0.2, {2: 7, 9: 1}), r"fewer classes .* names \[9\]"),
        (lambda: asymmetric(8, 0.2, {2: 8}), r"fewer classes .* names \[8\]"),
        (lambda: asymmetric(8, 0.2, {2: 2}), "flips to itself"),
        (lambda: asymmetric(8, 0.2, {}), "has none"),
        (lambda: ClassConditionalNoise(torch.ones(2, 3)), "square"),
        (lambda: ClassConditionalNoise(torch.tensor([[1.5, -0.5], [0, 1]])), "between 0 and 1"),
        (lambda: ClassConditionalNoise(torch.tensor([[0.5, 0.4], [0, 1.0]])), "row 0 sums to 0.9"),
        (lambda: ClassConditionalNoise(asymmetric(3, 0.4, {0: 1}).T), "transpose it"),
        (lambda: ClassConditionalNoise(torch.full((2, 2), float("nan"))), "between 0 and 1"),
    ],
)
def test_bad_noise_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_labels_outside_the_matrix_are_refused():
    with pytest.raises(ValueError, match="knows classes 0 to 2, the labels run from 0 to 3"):
        ClassConditionalNoise(symmetric(3, 0.1))(torch.arange(4), generator=generator(0))
