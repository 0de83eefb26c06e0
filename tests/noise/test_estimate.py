"""Estimated transition matrices against tables computed by hand."""

from __future__ import annotations

import pytest
import torch

from mln_lightning.noise import pair, symmetric
from mln_lightning.noise.estimate import (
    anchor_transition,
    inverse_transition,
    invertible,
    meta_transition,
)

PREDICTED = torch.tensor(
    [
        [0.95, 0.03, 0.02],
        [0.80, 0.15, 0.05],
        [0.05, 0.90, 0.05],
        [0.10, 0.30, 0.60],
        [0.20, 0.70, 0.10],
    ],
    dtype=torch.float64,
)


@pytest.mark.parametrize(
    ("quantile", "anchors"),
    [
        (1.0, [0, 2, 3]),  # equations 12 and 13 as they stand
        (0.99, [1, 4, 4]),  # the next below the surest: place 3 of 0…4
        (0.75, [1, 4, 4]),
        (0.74, [4, 3, 2]),  # of 0.05 and 0.05 in column 2 the later row
    ],
)
def test_rows_are_the_predictions_for_the_anchors(quantile: float, anchors: list[int]) -> None:
    got = anchor_transition(PREDICTED, quantile=quantile)
    torch.testing.assert_close(got, PREDICTED[anchors], rtol=1e-15, atol=1e-15)


def test_rows_sum_to_one_where_predictions_do_not_quite() -> None:
    got = anchor_transition(PREDICTED * 1.001)
    torch.testing.assert_close(got.sum(dim=1), torch.ones(3).double(), rtol=1e-15, atol=0)


@pytest.mark.parametrize("quantile", [1.0, 0.95])
def test_anchors_recover_the_matrix_where_classes_are_certain(quantile: float) -> None:
    """A perfect predictor of observed labels on images of certain class."""
    transition = pair(5, 0.3)
    clean = torch.arange(100) % 5
    blurred = torch.rand(100, 5, generator=torch.Generator().manual_seed(0)).double().softmax(dim=1)
    certain = torch.eye(5).double()[clean]
    posterior = torch.cat([certain, blurred])
    got = anchor_transition(posterior @ transition, quantile=quantile)
    torch.testing.assert_close(got, transition)


def test_meta_rows_are_mean_predictions_and_a_class_without_images_keeps_its_label() -> None:
    labels = torch.tensor([0, 0, 2, 2, 2])
    expected = torch.tensor(
        [[0.875, 0.09, 0.035], [0.0, 1.0, 0.0], [0.35 / 3, 1.9 / 3, 0.75 / 3]], dtype=torch.float64
    )
    torch.testing.assert_close(meta_transition(PREDICTED, labels), expected)


def test_inverse() -> None:
    transition = symmetric(10, 0.8)
    torch.testing.assert_close(
        transition @ inverse_transition(transition), torch.eye(10, dtype=transition.dtype)
    )


@pytest.mark.parametrize("rate", [0.75, 0.7499])
def test_classes_that_are_observed_alike_are_not_inverted(rate: float) -> None:
    """At rate (C - 1) / C every class is observed as any other; just below, nearly so."""
    with pytest.raises(ValueError, match=r"condition number is .* and may be 100 at most"):
        inverse_transition(symmetric(4, rate))


def test_an_estimate_is_mixed_with_the_identity_as_little_as_it_takes() -> None:
    good = pair(4, 0.3)
    assert torch.equal(invertible(good), good)
    same_anchor_twice = torch.tensor([[0.6, 0.4, 0.0], [0.6, 0.4, 0.0], [0.1, 0.1, 0.8]]).double()
    got = invertible(same_anchor_twice)
    torch.testing.assert_close(got, 0.95 * same_anchor_twice + 0.05 * torch.eye(3).double())
    torch.testing.assert_close(got @ inverse_transition(got), torch.eye(3).double())
