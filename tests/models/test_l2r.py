"""Learning to reweight against its equations."""

from __future__ import annotations

import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mln_lightning.batch import TrainBatch
from mln_lightning.models import LearningToReweight
from mln_lightning.weights import weights_against
from tests.models import weighing
from tests.models.weighing import assert_close, batch, buffers, fit, losses, network, values

LR, DECAY = 0.3, 0.01
SGD = functools.partial(torch.optim.SGD, lr=LR, momentum=0.9, weight_decay=DECAY)


def gradient_of_weights(module: nn.Module, of: TrainBatch) -> Tensor:
    """∂L_meta/∂ε at ε = 0 by double backward, for a virtual step of size 1."""
    eps = torch.zeros(len(of["train"].labels), dtype=torch.float64, requires_grad=True)
    after = weighing.meta_loss_after(module, lambda each: (eps * each).sum(), of, lr=1.0)
    return torch.autograd.grad(after, eps)[0]


@pytest.mark.parametrize("backend", ["jvp", "autograd"])
@pytest.mark.parametrize(("size", "meta"), [(7, 5), (3, 9)])
def test_step_equals_the_algorithm(size: int, meta: int, backend: str) -> None:
    module, of = network(), batch(size, meta=meta)
    theta, stats = values(module), buffers(module)
    gradient = gradient_of_weights(module, of)
    cut = torch.maximum(-gradient, torch.zeros(()).double())
    weights = cut / cut.sum()
    assert (weights > 0).any()
    leaves = {name: value.clone().requires_grad_() for name, value in theta.items()}
    train = of["train"]
    each = losses(module, leaves, stats, train.images, train.labels)
    grads = torch.autograd.grad((weights * each).sum(), list(leaves.values()))
    expected = weighing.momentum_steps(
        theta, [dict(zip(theta, grads, strict=True))], lr=LR, weight_decay=DECAY
    )

    (output,), (step,) = fit(LearningToReweight(module, 3, SGD, meta_backend=backend), [of])  # type: ignore[arg-type]
    torch.testing.assert_close(step.grads[0], gradient / size, rtol=1e-9, atol=1e-13)
    torch.testing.assert_close(output["loss"], (weights * each).sum().detach(), rtol=1e-9, atol=0)
    assert_close(values(module), expected)
    assert_close(buffers(module), stats)
    assert "soft_labels" not in output, "weights are not labels"


def test_the_gradient_of_a_weight_is_minus_the_product_of_two_gradients() -> None:
    module, of = network(), batch()
    leaves = {name: value.requires_grad_() for name, value in values(module).items()}
    train, meta = of["train"], of["meta"]
    each = losses(module, leaves, buffers(module), train.images, train.labels)
    clean = losses(module, leaves, buffers(module), meta.images, meta.labels).mean()

    def gradient(loss: Tensor) -> Tensor:
        grads = torch.autograd.grad(loss, list(leaves.values()), retain_graph=True)
        return torch.cat([grad.flatten() for grad in grads])

    v = gradient(clean)
    expected = torch.stack([-gradient(loss) @ v for loss in each])
    _, (step,) = fit(LearningToReweight(module, 3, SGD), [of])
    found = step.grads[0] * len(train.labels)  # the head loss is a mean
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("size", [1e-9, 1e6])
def test_the_size_of_the_virtual_step_drops_out(size: float) -> None:
    fitted = []
    for lr in (1.0, size):
        model = LearningToReweight(network(), 3, SGD)
        model.virtual_lr = lr
        _, steps = fit(model, [batch(seed=seed) for seed in range(3)])
        fitted.append((values(model.network), steps[0].grads[0]))
    assert_close(fitted[0][0], fitted[1][0])
    torch.testing.assert_close(fitted[0][1] * size, fitted[1][1])


def harmful() -> TrainBatch:
    """One image twice, observed as one of its two likely classes, clean as the other."""
    meta = batch(1, meta=1)["meta"]
    with torch.no_grad():
        likely = network()(meta.images).topk(2).indices
    return {
        "train": meta._replace(labels=likely[:, 0]),
        "meta": meta._replace(labels=likely[:, 1]),
    }


def test_a_batch_that_only_harms_is_not_learned_from() -> None:
    module = network()
    before = values(module)
    of = harmful()
    assert (gradient_of_weights(module, of) > 0).all(), "else this test says nothing"
    model = LearningToReweight(module, 3, SGD)
    (output,), _ = fit(model, [of])
    assert_close(values(module), before)
    assert model.global_step == 1
    assert "loss" not in output
    assert output["logits"].shape == (1, 3)
    assert torch.isfinite(output["meta_loss"])


@given(
    st.lists(st.floats(-(2**20), 2**20, width=32, allow_subnormal=False), min_size=1, max_size=20),
    st.sampled_from([1e-30, 1.0, 1e6]),
)
@settings(max_examples=200, deadline=None)
def test_weights_are_positive_parts_of_mean_one(entries: list[float], scale: float) -> None:
    gradient = torch.tensor(entries)
    weights = weights_against(gradient)
    assert ((weights > 0) <= (gradient < 0)).all()
    total = 1.0 if (gradient < 0).any() else 0.0
    assert weights.mean().item() == pytest.approx(total, abs=1e-5)
    torch.testing.assert_close(weights_against(gradient.double() * scale).float(), weights)


def test_sizes_of_the_meta_gradient_are_logged_and_arguments_checked() -> None:
    model = LearningToReweight(network(), 3, SGD)
    fit(model, [batch()])
    assert model.trainer.callback_metrics["meta/grad_norm"] > 0
    with pytest.raises(ValueError, match="warmup_epochs must be 0 or more, got -1"):
        LearningToReweight(network(), 3, SGD, warmup_epochs=-1)
