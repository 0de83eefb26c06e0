"""Meta-Weight-Net against its equations."""

from __future__ import annotations

import functools
from typing import Literal

import pytest
import torch
from torch import Tensor

from mln_lightning.models import MetaWeightNet
from mln_lightning.weights import WeightNet
from tests.models import weighing
from tests.models.weighing import Parameters, assert_close, batch, buffers, fit, losses, network
from tests.models.weighing import values as values_of

LR, RATE, DECAY = 0.3, 1e-2, 1e-4
SGD = functools.partial(torch.optim.SGD, lr=LR, momentum=0.9)
ADAM = functools.partial(torch.optim.Adam, lr=RATE, weight_decay=DECAY)
NAMES = ("layers.0.weight", "layers.0.bias", "layers.2.weight", "layers.2.bias")


def weights(phi: Parameters, each: Tensor) -> Tensor:
    """1 → 100 → 1 with ReLU and sigmoid, written out."""
    w1, b1, w2, b2 = (phi[name] for name in NAMES)
    hidden = torch.clamp(each.detach()[:, None] @ w1.T + b1, min=0)
    return (1 / (1 + torch.exp(-(hidden @ w2.T + b2))))[:, 0]


def adam_first_step(phi: Parameters, grads: Parameters) -> Parameters:
    """In its first step Adam's two corrected means are the gradient and its square."""
    pull = {name: grads[name] + DECAY * value for name, value in phi.items()}
    return {name: phi[name] - RATE * pull[name] / (pull[name].abs() + 1e-8) for name in phi}


def built(virtual_lr: float | Literal["current"] = "current", **options: str) -> MetaWeightNet:
    model = MetaWeightNet(
        network(),
        3,
        SGD,
        ADAM,
        virtual_lr=virtual_lr,
        **options,  # type: ignore[arg-type]
    )
    return model.double()


@pytest.mark.parametrize("backend", ["jvp", "autograd"])
@pytest.mark.parametrize("virtual_lr", ["current", 2.0])
@pytest.mark.parametrize(("size", "meta"), [(7, 5), (2, 9)])
def test_step_equals_the_algorithm(
    size: int, meta: int, virtual_lr: float | Literal["current"], backend: str
) -> None:
    model, of = built(virtual_lr, meta_backend=backend), batch(size, meta=meta)
    module = model.network
    theta, stats, phi = values_of(module), buffers(module), values_of(model.weight_net)
    alpha = LR if virtual_lr == "current" else float(virtual_lr)

    leaves = {name: value.clone().requires_grad_() for name, value in phi.items()}
    meta_loss = weighing.meta_loss_after(
        module, lambda each: (weights(leaves, each) * each).sum() / len(each), of, lr=alpha
    )
    gradient = dict(zip(leaves, torch.autograd.grad(meta_loss, list(leaves.values())), strict=True))
    new_phi = adam_first_step(phi, gradient)
    moving = {name: value.clone().requires_grad_() for name, value in theta.items()}
    each = losses(module, moving, stats, of["train"].images, of["train"].labels)
    loss = (weights(new_phi, each) * each).sum() / size
    grads = torch.autograd.grad(loss, list(moving.values()))
    expected = {name: theta[name] - LR * g for name, g in zip(theta, grads, strict=True)}

    (output,), (step,) = fit(model, [of])
    found = dict(zip(values_of(model.weight_net), step.grads, strict=True))
    assert max(g.abs().max() for g in gradient.values()) > 1e-4
    assert_close(found, gradient)
    assert_close(values_of(model.weight_net), new_phi)
    assert_close(values_of(module), expected)
    assert_close(buffers(module), stats)
    torch.testing.assert_close(output["loss"], loss.detach(), rtol=1e-9, atol=0)
    torch.testing.assert_close(output["meta_loss"], meta_loss.detach(), rtol=1e-9, atol=0)


def test_the_meta_batch_may_share_in_the_statistics() -> None:
    of = batch()
    counts = []
    for kind in ("copy", "share"):
        model = built(meta_buffers=kind)
        fit(model, [of])
        counts.append(int(model.network[1].num_batches_tracked))
    assert counts == [1, 2]


def test_weights_are_between_zero_and_one_and_any_batch_will_do() -> None:
    torch.manual_seed(0)
    net = WeightNet()
    each = torch.tensor([0.0, 1e-6, 1.0, 50.0, 1e4])
    assert net(each).shape == (5,)
    assert ((net(each) >= 0) & (net(each) <= 1)).all()
    assert net(each[:1]).shape == (1,)
    assert sum(p.numel() for p in net.parameters()) == 100 + 100 + 100 + 1
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert net(each).dtype == torch.float32


def test_the_conventional_step_leaves_the_weight_net_alone() -> None:
    """Its gradient there is that of the meta step and nothing else."""
    model = built()
    _, (step,) = fit(model, [batch()])
    for parameter, gradient in zip(model.weight_net.parameters(), step.grads, strict=True):
        assert parameter.grad is not None
        assert torch.equal(parameter.grad, gradient)


def test_an_unknown_virtual_rate_is_refused() -> None:
    with pytest.raises(ValueError, match="virtual_lr must be 0 or more, or 'current', got -1"):
        built(-1)
