"""mixup against its equations."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import torch

from mln_lightning.models import Mixup
from tests.models.watched import C, forward, leaves, small_network, watched

SGD = functools.partial(torch.optim.SGD, lr=0.1)


def test_steps_equal_the_equations(tmp_path: Path) -> None:
    model = Mixup(small_network(), C, SGD, mixup_alpha=1.0)
    drawn: list[tuple[float, torch.Tensor]] = []
    mixture = model.mixture
    model.mixture = lambda size: drawn.append(mixture(size)) or drawn[-1]  # type: ignore[method-assign, func-returns-value]
    steps, _ = watched(model, tmp_path)
    for step, (share, partners) in zip(steps, drawn, strict=True):
        x, y = step.batch.images, torch.eye(C, dtype=torch.float64)[step.batch.labels]
        theta = leaves(step.before)
        mixed_y = share * y + (1 - share) * y[partners]
        logits = forward(theta, share * x + (1 - share) * x[partners])
        log_p = logits - logits.exp().sum(1, keepdim=True).log()
        loss = -(mixed_y * log_p).sum(1).mean()
        loss.backward()
        for name, parameter in theta.items():
            assert parameter.grad is not None
            expected = parameter.detach() - 0.1 * parameter.grad
            torch.testing.assert_close(step.after[name], expected, rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(step.output["loss"], loss.detach(), rtol=1e-9, atol=1e-12)
        assert "logits" not in step.output, "predictions of mixtures say nothing about a label"
        assert sorted(partners.tolist()) == list(range(len(y)))
    assert len({share for share, _ in drawn}) == len(drawn), "every step draws anew"


@pytest.mark.parametrize("alpha", [0.3, 1.0, 8.0])
def test_shares_are_those_of_a_beta_distribution(alpha: float) -> None:
    """Beta(α, α) has mean 1/2 and variance 1 / (4 (2 α + 1))."""
    torch.manual_seed(0)
    model = Mixup(small_network(), C, SGD, mixup_alpha=alpha)
    shares = torch.tensor([model.mixture(2)[0] for _ in range(2000)])
    variance = 1 / (4 * (2 * alpha + 1))
    assert float(shares.mean()) == pytest.approx(0.5, abs=4 * (variance / 2000) ** 0.5)
    assert float(shares.var()) == pytest.approx(variance, rel=0.1)


def test_alpha_must_be_positive() -> None:
    with pytest.raises(ValueError, match=r"mixup_alpha must be positive, got 0.0"):
        Mixup(small_network(), C, SGD, mixup_alpha=0.0)
