"""Losses corrected by a transition matrix, against the theorems they come from."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import cross_entropy

from mln_lightning.losses import backward_correction, forward_correction

C = 4
EVERY_LABEL = torch.arange(C)


def random_case(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """A transition matrix that can be inverted, the clean posterior of an image, and logits."""
    generator = torch.Generator().manual_seed(seed)
    noise, q = torch.rand(2, C, C, generator=generator, dtype=torch.float64).softmax(dim=2)
    rate = 0.7 * torch.rand(C, 1, generator=generator, dtype=torch.float64)
    transition = (1 - rate) * torch.eye(C) + rate * noise
    logits = torch.randn(C, generator=generator, dtype=torch.float64) * 3
    return transition, q[0], logits


def of_each_label(logits: Tensor, transition: Tensor) -> Tensor:
    """``(C,)`` forward-corrected loss of one image, were it observed as 0, 1, …, C-1."""
    losses = [forward_correction(logits[None], y[None], transition=transition) for y in EVERY_LABEL]
    return torch.stack(losses)


@given(seed=st.integers(0, 10_000))
def test_forward_is_the_cross_entropy_of_the_observed_distribution(seed: int) -> None:
    transition, _, _ = random_case(seed)
    logits = torch.randn(6, C, generator=torch.Generator().manual_seed(seed)).double()
    labels = torch.randint(C, (6,), generator=torch.Generator().manual_seed(seed))
    observed = torch.einsum("bc,cy->by", logits.softmax(dim=1), transition)
    expected = -observed.log()[range(6), labels].mean()
    got = forward_correction(logits, labels, transition=transition)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


@given(seed=st.integers(0, 10_000))
def test_forward_is_minimal_at_the_clean_posterior(seed: int) -> None:
    """Theorem 2: whatever T, the mean over observed labels is least where p is the clean one."""
    transition, clean, elsewhere = random_case(seed)
    best = clean.log().requires_grad_()
    expected_loss = (clean @ transition) @ of_each_label(best, transition)
    (gradient,) = torch.autograd.grad(expected_loss, best)
    torch.testing.assert_close(gradient, torch.zeros(C).double(), rtol=0, atol=1e-12)
    assert (clean @ transition) @ of_each_label(elsewhere, transition) > expected_loss


@given(seed=st.integers(0, 10_000), floor=st.sampled_from([0.0, 1e-7, 0.1]))
def test_backward_is_unbiased(seed: int, floor: float) -> None:
    """Theorem 1: the mean over what a class is observed as is the loss of that class."""
    transition, _, logits = random_case(seed)
    inverse = torch.linalg.inv(transition)
    one = logits[None]
    losses = [backward_correction(one, y[None], inverse=inverse, floor=floor) for y in EVERY_LABEL]
    clean = -logits.softmax(dim=0).clamp(min=floor).log()
    torch.testing.assert_close(transition @ torch.stack(losses), clean, rtol=1e-10, atol=1e-10)


def test_without_noise_both_are_cross_entropy() -> None:
    logits, labels = torch.randn(7, C).double(), torch.randint(C, (7,))
    expected = cross_entropy(logits, labels)
    eye = torch.eye(C).double()
    torch.testing.assert_close(forward_correction(logits, labels, transition=eye), expected)
    torch.testing.assert_close(backward_correction(logits, labels, inverse=eye), expected)


@pytest.mark.parametrize("observed", [0, 1])
def test_forward_of_a_sure_network_is_the_logarithm_of_one_entry(observed: int) -> None:
    """In the log domain nothing is cut off: sure of class 0, other classes underflow."""
    transition = torch.tensor([[0.75, 0.25], [0.0, 1.0]])
    logits = torch.tensor([[1e4, -1e4]], requires_grad=True)
    loss = forward_correction(logits, torch.tensor([observed]), transition=transition)
    torch.testing.assert_close(loss, -transition[0, observed].log())
    (gradient,) = torch.autograd.grad(loss, logits)
    assert torch.isfinite(gradient).all()


def test_logits_of_half_precision_make_a_loss_of_the_matrix_precision() -> None:
    logits, labels = torch.randn(5, C).bfloat16(), torch.randint(C, (5,))
    transition = 0.6 * torch.eye(C) + 0.1
    inverse = torch.linalg.inv(transition)
    for loss, expected in (
        (
            forward_correction(logits, labels, transition=transition),
            forward_correction(logits.float(), labels, transition=transition),
        ),
        (
            backward_correction(logits, labels, inverse=inverse),
            backward_correction(logits.float(), labels, inverse=inverse),
        ),
    ):
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, expected, rtol=0, atol=0)
