"""Which samples are trusted."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mln_lightning.selection import keep_rate, small_loss


@pytest.mark.parametrize(
    ("epoch", "kept"), [(0, 1.0), (1, 0.9), (2, 0.8), (3, 0.7), (4, 0.6), (5, 0.6), (100, 0.6)]
)
def test_the_keep_rate_falls_in_a_straight_line_and_stays(epoch: int, kept: float) -> None:
    assert keep_rate(epoch, forget_rate=0.4, ramp_epochs=4) == pytest.approx(kept, abs=1e-12)
    assert keep_rate(epoch, forget_rate=0.4, ramp_epochs=0) == 0.6


@given(
    st.lists(st.floats(0, 10), min_size=1, max_size=40),
    st.integers(1, 100),
)
def test_small_losses_are_the_fewest_that_reach_the_rate(found: list[float], percent: int) -> None:
    losses = torch.tensor(found, dtype=torch.float64)
    chosen = small_loss(losses, percent / 100).tolist()
    assert len(chosen) == -(-percent * len(found) // 100)  # integers: no rounding to err by
    assert len(set(chosen)) == len(chosen) >= 1
    left_out = [loss for row, loss in enumerate(found) if row not in chosen]
    assert max(found[row] for row in chosen) <= min(left_out, default=math.inf)


def test_a_rate_with_a_rounding_error_keeps_no_sample_too_many() -> None:
    losses = torch.arange(10.0)
    assert (1 - 0.7) * 10 > 3
    assert small_loss(losses, 1 - 0.7).tolist() == [0, 1, 2]


def test_of_equal_losses_the_earlier_is_chosen_and_of_none_none() -> None:
    assert small_loss(torch.tensor([2.0, 1.0, 1.0, 1.0]), 0.5).tolist() == [1, 2]
    assert small_loss(torch.zeros(0), 0.5).tolist() == []
