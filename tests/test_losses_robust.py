"""Robust losses against numpy transcriptions, torch's own, and the theorems they were made for."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from torch import Tensor
from torch.nn.functional import cross_entropy

from mln_lightning import losses
from mln_lightning.config import conf_dir
from mln_lightning.models import Supervised

Loss = Callable[[Tensor, Tensor], Tensor]
seeds = st.integers(0, 10_000)
qs = st.floats(0.01, 1)


def problem(seed: int, rows: int = 6, classes: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(rows, classes, generator=generator, dtype=torch.float64)
    return logits.requires_grad_(), torch.randint(classes, (rows,), generator=generator)


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def smoothed(p: np.ndarray, y: np.ndarray) -> np.ndarray:
    return -(y * 0.9 + 0.1 / y.shape[1]) * np.log(p)


def bootstrapped_softly(p: np.ndarray, y: np.ndarray) -> np.ndarray:
    return -(0.95 * y + 0.05 * p) * np.log(p)


def bootstrapped_hard(p: np.ndarray, y: np.ndarray) -> np.ndarray:
    return -(0.8 * y + 0.2 * (p == p.max(1, keepdims=True))) * np.log(p)


def generalised(p: np.ndarray, y: np.ndarray) -> np.ndarray:
    return y * (1 - p**0.7) / 0.7


def symmetric(p: np.ndarray, y: np.ndarray) -> np.ndarray:
    return -0.1 * y * np.log(p) - p * np.where(y == 1, 0, -4)


def active_passive(p: np.ndarray, y: np.ndarray) -> np.ndarray:
    normalised = y * np.log(p) / np.log(p).sum(1, keepdims=True)
    return normalised - p * np.where(y == 1, 0, -4)


def configured(method: str) -> Loss:
    """The loss with the options of conf/model."""
    return instantiate(OmegaConf.load(conf_dir() / "model" / f"{method}.yaml").loss)


CLOSED = {
    "label_smoothing": smoothed,
    "bootstrap_soft": bootstrapped_softly,
    "bootstrap_hard": bootstrapped_hard,
    "gce": generalised,
    "sce": symmetric,
    "nce_rce": active_passive,
}


@pytest.mark.parametrize("method", CLOSED)
def test_the_configured_loss_and_its_gradient_are_the_closed_form(method: str) -> None:
    """The options of conf/model, values and central differences, in numpy."""
    loss = configured(method)
    logits, labels = problem(1)
    o, y = logits.detach().numpy(), np.eye(5)[labels.numpy()]

    def closed(o: np.ndarray) -> float:
        return float(CLOSED[method](softmax(o), y).sum(1).mean())

    got = loss(logits, labels)
    assert got.item() == pytest.approx(closed(o), rel=1e-12)
    (grad,) = torch.autograd.grad(got, logits)
    numeric = np.zeros_like(o)
    for place in np.ndindex(*o.shape):
        step = np.zeros_like(o)
        step[place] = 1e-5
        numeric[place] = (closed(o + step) - closed(o - step)) / 2e-5
    np.testing.assert_allclose(grad.numpy(), numeric, rtol=1e-6, atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(seed=seeds)
def test_soft_bootstrapping_differentiates_its_target_too(seed: int) -> None:
    """∂/∂o = β (p − y) − (1 − β) p ⊙ (log p + H(p)), over the batch size."""
    logits, labels = problem(seed)
    (got,) = torch.autograd.grad(losses.bootstrap_soft(logits, labels, beta=0.3), logits)
    p = softmax(logits.detach().numpy())
    entropy = -(p * np.log(p)).sum(1, keepdims=True)
    expected = 0.3 * (p - np.eye(5)[labels.numpy()]) - 0.7 * p * (np.log(p) + entropy)
    np.testing.assert_allclose(got.numpy(), expected / len(p), rtol=1e-9, atol=1e-12)


def sum_over_labels(loss: Loss, logits: Tensor) -> float:
    """Σ_c loss(o, c) of one sample; the losses average over a batch."""
    classes = logits.shape[1]
    return classes * float(loss(logits.detach().expand(classes, -1), torch.arange(classes)))


@settings(max_examples=30, deadline=None)
@given(seed=seeds, classes=st.integers(2, 12))
def test_noise_tolerant_losses_sum_to_a_constant_over_all_labels(seed: int, classes: int) -> None:
    """Then symmetric noise below (C − 1)/C does not move the minimum (Ghosh et al. 2017)."""
    logits, _ = problem(seed, rows=1, classes=classes)
    constants: list[tuple[Loss, float]] = [
        (functools.partial(losses.gce, q=1.0), classes - 1),  # mean absolute error
        (losses.reverse_cross_entropy, 4 * (classes - 1)),
        (losses.normalized_cross_entropy, 1),
        (functools.partial(losses.nce_rce, alpha=2, beta=3, log_zero=-9), 2 + 27 * (classes - 1)),
    ]
    for loss, constant in constants:
        assert sum_over_labels(loss, logits) == pytest.approx(constant, rel=1e-9)


def test_cross_entropy_and_gce_are_not_noise_tolerant() -> None:
    for loss in (cross_entropy, losses.gce):
        sums = {sum_over_labels(loss, problem(seed, rows=1)[0]) for seed in (0, 1)}
        assert max(sums) - min(sums) > 0.1


@settings(max_examples=30, deadline=None)
@given(seed=seeds, q=qs, classes=st.integers(2, 12))
def test_gce_is_bounded_over_all_labels(seed: int, q: float, classes: int) -> None:
    """(C − C^(1−q)) / q ≤ Σ_c L_q(p_c) ≤ (C − 1) / q: Zhang & Sabuncu 2018."""
    logits, _ = problem(seed, rows=1, classes=classes)
    total = sum_over_labels(functools.partial(losses.gce, q=q), logits)
    slack = 1e-9 * classes / q
    lowest = (classes - classes ** (1 - q)) / q
    assert lowest - slack <= total <= (classes - 1) / q + slack
    uniform = sum_over_labels(functools.partial(losses.gce, q=q), torch.zeros(1, classes).double())
    assert uniform == pytest.approx(lowest)


@settings(max_examples=30, deadline=None)
@given(seed=seeds)
def test_gce_lies_between_cross_entropy_and_absolute_error(seed: int) -> None:
    logits, labels = problem(seed)
    ce = cross_entropy(logits, labels)
    absolute = 1 - logits.softmax(1)[torch.arange(6), labels].mean()
    torch.testing.assert_close(losses.gce(logits, labels, q=1e-7), ce, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(losses.gce(logits, labels, q=1.0), absolute)
    assert absolute <= losses.gce(logits, labels, q=0.5) <= ce


@pytest.mark.parametrize("method", CLOSED)
def test_sure_and_wrong_predictions_stay_finite(method: str) -> None:
    """In float32 p_y underflows at logits of ±100."""
    loss = configured(method)
    logits = (200 * torch.eye(4) - 100).requires_grad_()
    value = loss(logits, torch.tensor([1, 2, 3, 0]))
    (grad,) = torch.autograd.grad(value, logits)
    assert math.isfinite(value.item())
    assert torch.isfinite(grad).all()


@pytest.mark.parametrize(
    ("loss", "options", "sentence"),
    [
        (losses.bootstrap_soft, {"beta": 1.5}, "beta must be 0 to 1, got 1.5"),
        (losses.bootstrap_hard, {"beta": -0.1}, "beta must be 0 to 1, got -0.1"),
        (losses.gce, {"q": 0.0}, "q must be above 0 and at most 1, got 0.0"),
        (losses.sce, {"alpha": -1.0}, "alpha must be 0 or more, got -1.0"),
        (losses.sce, {"log_zero": 0.0}, "log_zero must be negative, got 0.0"),
        (losses.nce_rce, {"beta": -2.0}, "beta must be 0 or more, got -2.0"),
    ],
)
def test_options_out_of_range_are_refused_by_the_model(
    loss: Loss, options: dict[str, float], sentence: str
) -> None:
    sgd = functools.partial(torch.optim.SGD, lr=0.1)
    with pytest.raises(ValueError, match=sentence):
        Supervised(torch.nn.Linear(2, 3), 3, sgd, functools.partial(loss, **options))
