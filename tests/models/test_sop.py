"""SOP against its equations, step by step."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import torch

from mln_lightning.models import SOP
from tests.models.watched import C, forward, leaves, small_network, watched

SGD = functools.partial(torch.optim.SGD, lr=0.1)


def test_steps_equal_the_equations(tmp_path: Path) -> None:
    """θ and u descend on the cross-entropy, v on the squared error; neither on the other's loss."""
    model = SOP(small_network(), C, SGD, u_lr=6.0, v_lr=3.0, start=0.3)  # a start that shows
    steps, data = watched(model, tmp_path, epochs=2)
    u, v = steps[0].before["u"].clone(), steps[0].before["v"].clone()
    for step in steps:
        i, size = step.batch.index, len(step.batch.index)
        y = torch.eye(C, dtype=torch.float64)[step.batch.labels]
        theta, ui, vi = leaves(step.before), u[i].requires_grad_(), v[i].requires_grad_()
        logits = forward(theta, step.batch.images)
        p = logits.exp() / logits.exp().sum(1, keepdim=True)
        corrected = torch.clamp(p + ui**2 * y - vi.detach() ** 2 * (1 - y), min=1e-4)
        corrected = corrected / corrected.abs().sum(1, keepdim=True)
        fit = -(y * corrected.log()).sum() / size
        hard = (p == p.max(1, keepdim=True).values).double()
        error = ((hard + ui.detach() ** 2 * y - vi**2 * (1 - y) - y) ** 2).sum() / size
        fit_grads = torch.autograd.grad(fit, [*theta.values(), ui])
        (grad_v,) = torch.autograd.grad(error, vi)
        for (name, parameter), grad in zip(theta.items(), fit_grads[:-1], strict=True):
            expected = parameter.detach() - 0.1 * grad
            torch.testing.assert_close(step.after[name], expected, rtol=1e-9, atol=1e-11)
        u[i] = (ui.detach() - 6 * fit_grads[-1]).clamp(-1, 1)
        v[i] = (vi.detach() - 3 * grad_v).clamp(-1, 1)
        torch.testing.assert_close(step.after["u"], u, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(step.after["v"], v, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(step.output["loss"], fit.detach(), rtol=1e-9, atol=1e-12)
    outside = torch.ones(400, dtype=torch.bool)
    outside[data.train_index] = False
    assert torch.equal(u[outside], steps[0].before["u"][outside]), "rows of other sets rest"
    assert (u.abs() == 1).any(), "the bound of u was not reached, so it was not tested"


@pytest.mark.slow
def test_tables_start_small_and_take_up_the_wrong_labels(tmp_path: Path) -> None:
    model = SOP(small_network(), C, SGD, u_lr=10.0, v_lr=10.0)
    steps, data = watched(model, tmp_path, epochs=25)
    start = steps[0].before
    assert start["u"].shape == (400, 1)
    assert start["v"].shape == (400, C)
    for table in (start["u"], start["v"]):
        assert 0.5e-8 < float(table.std()) < 1.5e-8
    noise = model.u[data.train_index, 0] ** 2
    wrong = data.parts.train.labels != data.clean[data.train_index]
    assert noise[wrong].mean() > 5 * noise[~wrong].mean()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"u_lr": -1.0}, "u_lr must be 0 or more, got -1.0"),
        ({"v_lr": -1.0}, "v_lr must be 0 or more, got -1.0"),
        ({"start": 0.0}, "start must be positive, got 0.0"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, float], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        SOP(small_network(), C, SGD, **arguments)  # type: ignore[arg-type]
