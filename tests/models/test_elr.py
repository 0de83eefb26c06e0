"""ELR against its equations, step by step."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import torch

from mln_lightning.batch import Batch, TrainBatch
from mln_lightning.models import ELR
from tests.models.watched import C, forward, leaves, small_network, watched

SGD = functools.partial(torch.optim.SGD, lr=0.1)


def test_steps_equal_the_equations(tmp_path: Path) -> None:
    """Two epochs: in the second every target is made of two predictions."""
    model = ELR(small_network(), C, SGD, elr_weight=2.0, target_momentum=0.6)
    steps, data = watched(model, tmp_path, epochs=2)
    targets = torch.zeros(400, C, dtype=torch.float64)
    visits = torch.zeros(400, dtype=torch.int64)
    for step in steps:
        theta = leaves(step.before)
        logits = forward(theta, step.batch.images)
        p = logits.exp() / logits.exp().sum(1, keepdim=True)
        for row, i in enumerate(step.batch.index.tolist()):
            targets[i] = 0.6 * targets[i] + 0.4 * p[row].detach()
            visits[i] += 1
        rows = torch.arange(len(p))
        ce = -p[rows, step.batch.labels].log().mean()
        regulariser = (1 - (p * targets[step.batch.index]).sum(1)).log().mean()
        (ce + 2 * regulariser).backward()
        for name, parameter in theta.items():
            assert parameter.grad is not None
            expected = parameter.detach() - 0.1 * parameter.grad
            torch.testing.assert_close(step.after[name], expected, rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(step.after["targets"], targets, rtol=1e-9, atol=1e-12)
        loss = (ce + 2 * regulariser).detach()
        torch.testing.assert_close(step.output["loss"], loss, rtol=1e-9, atol=1e-12)
        soft = step.output["soft_labels"]
        torch.testing.assert_close(soft.sum(1), torch.ones_like(soft.sum(1)))
    torch.testing.assert_close(targets.sum(1), 1 - 0.6 ** visits.double())
    outside = torch.ones(400, dtype=torch.bool)
    outside[data.train_index] = False
    assert not targets[outside].any(), "samples of the meta set have no predictions"
    assert int(visits.max()) == 2


@pytest.mark.slow
def test_the_regulariser_holds_a_sample_back_from_a_wrong_label(tmp_path: Path) -> None:
    """With a strong one, predictions on wrong labels stay with the other class."""
    repeated = []
    for weight in (0.0, 5.0):
        model = ELR(small_network(), C, SGD, elr_weight=weight)
        steps, _ = watched(model, tmp_path, epochs=12)
        wrong = [s.batch.labels != s.batch.clean for s in steps[-11:]]
        pairs = zip(steps[-11:], wrong, strict=True)
        said = torch.cat([s.output["logits"].softmax(1)[w] for s, w in pairs])
        labels = torch.cat([s.batch.labels[w] for s, w in zip(steps[-11:], wrong, strict=True)])
        repeated.append(float(said[torch.arange(len(said)), labels].mean()))
    assert repeated[1] < repeated[0] / 2


def test_a_sure_prediction_stays_finite() -> None:
    model = ELR(torch.nn.Flatten(), C, lambda _: torch.optim.SGD([torch.zeros(1)], lr=0.1))
    model.prepare(torch.zeros(2, dtype=torch.int64))
    model.targets[:] = torch.eye(C)[:2]
    images = torch.eye(C)[:2].mul(200).requires_grad_()
    gradients: list[torch.Tensor] = []
    model.descend = lambda loss: gradients.extend(torch.autograd.grad(loss, images))  # type: ignore[method-assign]
    batch = Batch(images, torch.tensor([1, 1]), torch.tensor([0, 1]), torch.arange(2))
    output = model.noisy_step(TrainBatch(train=batch, meta=batch))
    assert torch.isfinite(output["loss"])
    assert torch.isfinite(gradients[0]).all()
    assert gradients[0].abs().max() > 0.1, "cross-entropy still pulls"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"elr_weight": -1.0}, "elr_weight must be 0 or more, got -1.0"),
        ({"target_momentum": 1.0}, "target_momentum must be at least 0 and below 1, got 1.0"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, float], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        ELR(small_network(), C, SGD, **arguments)  # type: ignore[arg-type]
