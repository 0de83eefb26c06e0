import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mln_lightning.apportion import largest_remainder, rounded_to
from mln_lightning.seeding import generator


@given(
    st.lists(st.integers(0, 50), min_size=1, max_size=30).filter(any),
    st.integers(0, 5000),
    st.integers(0, 100),
)
def test_sum_is_kept_and_no_share_is_off_by_one(weights, total, seed):
    quotas = torch.tensor(weights, dtype=torch.float64) / sum(weights) * total
    counts = largest_remainder(quotas, generator=generator(seed))
    assert int(counts.sum()) == total
    assert bool(((counts - quotas).abs() < 1).all())
    assert bool((counts[quotas == 0] == 0).all())


def test_whole_quotas_are_returned_as_they_are():
    # 0.1 · 3 · 10 and its kind are not whole in binary.
    quotas = torch.tensor([0.1 * 3 * 10, 7 - 1e-12, 0.0, 2 + 1e-12], dtype=torch.float64)
    assert largest_remainder(quotas, generator=generator(0)).tolist() == [3, 7, 0, 2]


def test_largest_remainders_win():
    quotas = torch.tensor([1.1, 1.9, 2.3, 0.7], dtype=torch.float64)
    for seed in range(10):
        assert largest_remainder(quotas, generator=generator(seed)).tolist() == [1, 2, 2, 1]


def test_ties_are_drawn_by_lot():
    quotas = torch.full((4,), 0.25, dtype=torch.float64)
    draws = torch.stack([largest_remainder(quotas, generator=generator(s)) for s in range(400)])
    # 400 draws with chance 1/4: mean 100, deviation 8.7.
    assert bool(((draws.sum(dim=0) - 100).abs() < 45).all())


@pytest.mark.parametrize("quotas", [[0.5, 0.7], [-1.0, 2.0], [float("nan"), 1.0]])
def test_impossible_quotas_are_refused(quotas):
    with pytest.raises(ValueError, match="Quotas must"):
        largest_remainder(torch.tensor(quotas), generator=generator(0))


@given(st.lists(st.floats(0, 50), min_size=1, max_size=30), st.floats(0, 1), st.integers(0, 9))
def test_quotas_can_be_rounded_to_any_sum_in_reach(values, share, seed):
    quotas = torch.tensor(values, dtype=torch.float64).round(decimals=6)
    low, high = int(quotas.floor().sum()), int(quotas.ceil().sum())
    total = round(low + share * (high - low))
    lots = torch.randperm(len(quotas), generator=generator(seed))
    counts = rounded_to(total, quotas, lots)
    assert int(counts.sum()) == total
    assert bool(((counts - quotas).abs() < 1).all())


def test_of_equal_remainders_the_first_lots_win():
    quotas = torch.tensor([0.5, 1.5, 2.5, 0.7], dtype=torch.float64)
    assert rounded_to(5, quotas, torch.tensor([2, 0, 1, 3])).tolist() == [0, 1, 3, 1]
    assert rounded_to(4, quotas, torch.tensor([2, 0, 1, 3])).tolist() == [0, 1, 2, 1]
