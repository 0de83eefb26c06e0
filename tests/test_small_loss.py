"""Which samples are trusted."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.mixture import GaussianMixture

from mln_lightning.selection import clean_probability, keep_rate, small_loss


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


def two_heaps() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    low = 0.2 + 0.1 * torch.randn(150, generator=generator, dtype=torch.float64)
    high = 2.0 + 0.2 * torch.randn(50, generator=generator, dtype=torch.float64)
    return torch.cat([low, high]).abs()


def test_clean_probability_is_bayes_rule_for_the_fitted_mixture() -> None:
    losses = two_heaps()
    scaled = (losses - losses.min()) / (losses.max() - losses.min())
    fitted = GaussianMixture(2, max_iter=10, tol=1e-2, reg_covar=5e-4, random_state=0)
    fitted.fit(scaled.numpy()[:, None])
    prior = torch.from_numpy(fitted.weights_)
    mean, variance = (torch.from_numpy(x).flatten() for x in (fitted.means_, fitted.covariances_))
    square = (scaled[:, None] - mean) ** 2 / variance
    joint = prior * (-square / 2).exp() / (2 * torch.pi * variance).sqrt()
    low = int(mean.argmin())
    torch.testing.assert_close(
        clean_probability(losses), joint[:, low] / joint.sum(1), rtol=1e-9, atol=1e-12
    )


def test_clean_probability_tells_the_heaps_apart_on_any_scale() -> None:
    losses = two_heaps()
    found = clean_probability(losses)
    assert (found[:150] > 0.5).all()
    assert (found[150:] < 0.5).all()
    torch.testing.assert_close(clean_probability(5 * losses + 3), found, rtol=1e-6, atol=1e-9)
    assert clean_probability(losses.float()).dtype == torch.float32


@pytest.mark.parametrize("number", [0, 1, 5])
def test_equal_losses_speak_against_no_sample(number: int) -> None:
    assert clean_probability(torch.full((number,), 0.7)).tolist() == [1.0] * number


def test_a_loss_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        clean_probability(torch.tensor([0.1, torch.nan, 0.3]))
