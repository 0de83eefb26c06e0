"""MixMatch's parts by their closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mln_lightning.losses import prior_kl
from mln_lightning.mixmatch import mixmatch_loss, mixup, sharpen

F64 = torch.float64


def probabilities(rows: int, classes: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, classes, generator=generator, dtype=F64).softmax(dim=1)


@pytest.mark.parametrize("temperature", [0.25, 0.5, 1.0, 3.0])
def test_sharpening_by_its_formula(temperature: float) -> None:
    p = probabilities(5, 4)
    powers = p ** (1 / temperature)
    expected = powers / powers.sum(1, keepdim=True)
    torch.testing.assert_close(sharpen(p, temperature), expected, rtol=1e-12, atol=0)


def test_sharpening_keeps_zeros_and_goes_to_one_hot() -> None:
    assert sharpen(torch.tensor([[1.0, 0.0, 0.0]]), 0.5).tolist() == [[1.0, 0.0, 0.0]]
    assert sharpen(torch.tensor([[0.6, 0.4]]), 1e-3).tolist() == [[1.0, 0.0]]


@given(st.floats(0.1, 10), st.integers(0, 2**40), st.integers(1, 6))
def test_mixup_blends_with_one_share_and_keeps_the_larger_part(
    alpha: float, seed: int, number: int
) -> None:
    images = torch.eye(number, dtype=F64).reshape(number, 1, 1, number)
    soft = probabilities(number, 3)
    mixed, mixed_soft = mixup(images, soft, alpha, torch.Generator().manual_seed(seed))
    blend = mixed.reshape(number, number)  # row i: how much of every sample is in the i-th one
    torch.testing.assert_close(mixed_soft, blend @ soft, rtol=0, atol=1e-12)
    torch.testing.assert_close(blend.sum(1), torch.ones(number, dtype=F64), rtol=0, atol=1e-12)
    torch.testing.assert_close(blend.sum(0), torch.ones(number, dtype=F64), rtol=0, atol=1e-12)
    assert (blend.diagonal() >= 0.5).all()
    assert len({round(float(x), 9) for x in blend.flatten()} - {0.0, 1.0}) <= 2


def test_the_share_follows_the_folded_beta_distribution() -> None:
    image = torch.tensor([0.0, 1.0]).reshape(2, 1, 1, 1)
    shares = []
    for seed in range(600):
        mixed, _ = mixup(image, torch.eye(2), 4.0, torch.Generator().manual_seed(seed))
        if float(mixed[0]):  # exchanged, as in every second draw
            shares.append(float(mixed[1]))
    folded = np.random.default_rng(0).beta(4, 4, 10**6)
    folded = np.maximum(folded, 1 - folded)
    assert np.mean(shares) == pytest.approx(folded.mean(), abs=0.02)
    assert np.std(shares) == pytest.approx(folded.std(), abs=0.02)
    assert 0.4 < len(shares) / 600 < 0.6


@pytest.mark.parametrize("rows", [[0, 2, 3], [], [0, 1, 2, 3, 4]])
def test_loss_by_its_formula_also_with_one_kind_absent(rows: list[int]) -> None:
    torch.manual_seed(0)
    logits, soft = torch.randn(5, 4, dtype=F64), probabilities(5, 4, seed=1)
    p = logits.exp() / logits.exp().sum(1, keepdim=True)
    expected = 0.0
    for i in rows:
        expected -= float((soft[i] * p[i].log()).sum()) / len(rows)
    for i in (others := [i for i in range(5) if i not in rows]):
        expected += 7 * float(((p[i] - soft[i]) ** 2).sum()) / 4 / len(others)
    labelled = torch.tensor([i in rows for i in range(5)])
    got = mixmatch_loss(logits, soft, labelled, unlabelled_weight=7)
    assert float(got) == pytest.approx(expected, rel=1e-12)


def test_prior_by_its_formula() -> None:
    logits = torch.randn(6, 4, dtype=F64, generator=torch.Generator().manual_seed(2))
    mean = logits.softmax(1).mean(0)
    expected = float((0.25 * (0.25 / mean).log()).sum())
    assert float(prior_kl(logits)) == pytest.approx(expected, rel=1e-12)
    assert expected > 0


def test_prior_is_zero_for_balanced_predictions_and_finite_for_one_class() -> None:
    balanced = 50 * torch.eye(3, dtype=F64)
    assert float(prior_kl(balanced)) == pytest.approx(0, abs=1e-12)
    one_class = torch.zeros(4, 3)
    one_class[:, 0] = 500
    assert math.isfinite(float(prior_kl(one_class)))
