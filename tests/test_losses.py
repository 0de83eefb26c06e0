"""Losses against torch's own and against the algebra of the paper."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import kl_div

from mln_lightning.losses import entropy, reduce, reverse_kl


def random_pair(seed: int, rows: int = 5, classes: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits, labels = torch.randn(2, rows, classes, generator=generator, dtype=torch.float64) * 3
    return logits.requires_grad_(), labels.log_softmax(dim=1)


@given(seed=st.integers(0, 10_000), reduction=st.sampled_from(["batch", "element"]))
def test_reverse_kl_is_torchs_kl_with_the_arguments_swapped(seed: int, reduction: str) -> None:
    logits, log_soft = random_pair(seed)
    terms = kl_div(log_soft, logits.log_softmax(dim=1), log_target=True, reduction="none")
    expected = terms.sum(dim=1).mean() if reduction == "batch" else terms.mean()
    torch.testing.assert_close(reverse_kl(logits, log_soft, reduction=reduction), expected)
    assert expected >= 0


@given(seed=st.integers(0, 10_000))
def test_entropy_is_that_of_a_categorical(seed: int) -> None:
    logits, _ = random_pair(seed)
    expected = torch.distributions.Categorical(logits=logits).entropy().mean()
    torch.testing.assert_close(entropy(logits), expected)


@pytest.mark.parametrize("reduction", ["batch", "element"])
def test_kl_plus_entropy_is_a_reverse_cross_entropy(reduction: str) -> None:
    logits, log_soft = random_pair(0)
    eps = 1e-10
    loss = reverse_kl(logits, log_soft, reduction=reduction, label_eps=eps) + entropy(
        logits, reduction=reduction
    )
    reverse_ce = -reduce(logits.softmax(dim=1) * (log_soft.exp() + eps).log(), reduction)
    torch.testing.assert_close(loss, reverse_ce, rtol=1e-14, atol=0)
    got, expected = (
        torch.autograd.grad(x, logits, retain_graph=True)[0] for x in (loss, reverse_ce)
    )
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-14)


def test_element_mean_is_smaller_by_the_number_of_classes() -> None:
    logits, log_soft = random_pair(1)
    torch.testing.assert_close(
        reverse_kl(logits, log_soft, reduction="element") * 4, reverse_kl(logits, log_soft)
    )


def test_unknown_reduction_is_refused() -> None:
    with pytest.raises(ValueError, match="'batch' or 'element', got 'sum'"):
        reduce(torch.ones(2, 2), "sum")  # type: ignore[arg-type]
