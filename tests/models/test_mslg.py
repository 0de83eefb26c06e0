"""MSLG against a transcription with a second-order graph, and what its label table keeps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from mln_lightning.batch import UNKNOWN
from mln_lightning.models import MSLG
from tests.models.soft_label_runs import (
    LR,
    MOMENTUM,
    SGD,
    C,
    Fit,
    by_hand,
    fit,
    network,
    same,
    start,
)


def transcribed(
    theta: list[Tensor], run: Fit, *, alpha: float, beta: float, gamma: float, mean: bool
) -> tuple[Tensor, list[Tensor]]:
    """The published iteration by double backward; ``mean``: over samples and classes."""
    labels = run.labels
    table = torch.zeros(len(labels), C, dtype=torch.float64)
    for row, label in enumerate(labels):
        if label != UNKNOWN:
            table[row, label] = 10.0
    sgd = torch.optim.SGD(theta, lr=LR, momentum=MOMENTUM)
    losses = []
    for batch in run.batches:
        train, meta = batch["train"], batch["meta"]
        scale = len(train.labels) * (C if mean else 1)
        logits = by_hand(theta, train.images)[1]
        p, log_p = logits.softmax(1), logits.log_softmax(1)

        rows = table[train.index].requires_grad_()
        divergence = (p * (log_p - rows.softmax(1).log())).sum() / scale
        grads = torch.autograd.grad(divergence, theta, create_graph=True)
        virtual = [t - alpha * g for t, g in zip(theta, grads, strict=True)]
        meta_loss = cross_entropy(by_hand(virtual, meta.images)[1], meta.labels)
        table[train.index] -= beta * torch.autograd.grad(meta_loss, rows, retain_graph=True)[0]

        soft = table[train.index].softmax(1)
        loss = (p * (log_p - soft.log())).sum() / scale - gamma * (p * log_p).sum() / scale
        sgd.zero_grad()
        loss.backward(inputs=theta)
        sgd.step()
        losses.append(torch.stack([loss.detach(), meta_loss.detach()]))
    return table, [*theta, torch.stack(losses)]


@pytest.mark.parametrize(
    ("reduction", "label_lr", "entropy_weight"), [("batch", 400.0, 1.0), ("element", 4000.0, 0.3)]
)
def test_two_epochs_equal_the_published_iteration(
    reduction: str, label_lr: float, entropy_weight: float
) -> None:
    model = MSLG(
        network(),
        C,
        SGD,
        warmup_epochs=0,
        label_lr=label_lr,
        entropy_weight=entropy_weight,
        reduction=reduction,  # type: ignore[arg-type]
    )
    theta = start(model.network)
    run = fit(model)
    table, expected = transcribed(
        theta, run, alpha=0.5, beta=label_lr, gamma=entropy_weight, mean=reduction == "element"
    )
    same(model.table.logits, table)
    losses = torch.stack([torch.stack([o["loss"], o["meta_loss"]]) for o in run.outputs])
    for got, value in zip([*model.network.parameters(), losses], expected, strict=True):
        same(got.detach(), value.detach())


def test_only_rows_of_samples_that_were_seen_move_and_the_step_trains_on_the_moved_ones() -> None:
    model = MSLG(network(), C, SGD, warmup_epochs=1)
    run = fit(model, epochs=2, steps=1)
    first = 10.0 * torch.nn.functional.one_hot(run.labels.clamp(min=0), C).double()
    first[run.labels == UNKNOWN] = 0
    seen = torch.zeros(len(first), dtype=torch.bool)
    seen[run.batches[1]["train"].index] = True  # the first batch is one of the warm-up
    moved = (model.table.logits != first).any(dim=1)
    assert torch.equal(moved, seen)
    index = run.batches[1]["train"].index
    same(run.outputs[1]["soft_labels"], model.table.logits[index].softmax(dim=1))
    assert "soft_labels" not in run.outputs[0]


def test_a_row_without_a_label_starts_uniform_and_is_learned() -> None:
    model = MSLG(network(), C, SGD, warmup_epochs=0)
    run = fit(model, epochs=1, steps=2, unlabelled=200)
    train = run.batches[0]["train"]
    hidden = train.labels == UNKNOWN
    assert hidden.any()
    assert len(run.outputs[0]["logits"]) == len(train.labels), "unlabelled samples were left out"
    learned = run.outputs[0]["soft_labels"][hidden]
    assert (learned - 1 / C).abs().amax(dim=1).min() > 1e-9
    table, _ = transcribed(start(network()), run, alpha=0.5, beta=400.0, gamma=1.0, mean=False)
    same(model.table.logits, table)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"label_lr": -1.0}, "label_lr must be 0 or more, got -1.0"),
        ({"entropy_weight": -1.0}, "entropy_weight must be 0 or more, got -1.0"),
        ({"sharpness": 0.0}, "sharpness must be positive, got 0.0"),
        ({"reduction": "sum"}, "reduction must be one of batch, element, got 'sum'"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        MSLG(network(), C, SGD, **arguments)  # type: ignore[arg-type]
