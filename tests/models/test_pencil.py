"""PENCIL against a transcription of its three stages, and where its labels come to rest."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from mln_lightning.batch import UNKNOWN, Batch
from mln_lightning.labels import LabelTable
from mln_lightning.models import Pencil
from tests.models.recorded import STEPS, C, Recorder, fit, network

SGD = functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=1e-3)
ALPHA, BETA, LAMBDA, K = 0.1, 0.8, 300.0, 5.0
WARMUP, RELABEL, EPOCHS = 1, 2, 4


@pytest.fixture(scope="module")
def run() -> tuple[Pencil, Recorder]:
    model = Pencil(
        network(),
        C,
        SGD,
        warmup_epochs=WARMUP,
        relabel_epochs=RELABEL,
        compatibility_weight=ALPHA,
        entropy_weight=BETA,
        label_lr=LAMBDA,
        sharpness=K,
    )
    recorder, _ = fit(model, EPOCHS)
    return model, recorder


def transcription(recorder: Recorder) -> tuple[dict[str, Tensor], dict[int, Tensor], list[Tensor]]:
    """The paper's procedure on the same batches: last weights, label logits, and all losses."""
    table: dict[int, Tensor] = {}
    losses: list[Tensor] = []
    net = network().double()
    sgd = SGD(net.parameters())
    for step, batch in enumerate(recorder.batches):
        train, epoch = batch["train"], step // STEPS
        rows, size = train.index.tolist(), len(train.index)
        observed = torch.eye(C, dtype=torch.float64)[train.labels]
        for i, row in zip(rows, observed, strict=True):
            table.setdefault(i, K * row)
        logits = net(train.images)
        p, log_p = logits.softmax(1), logits.log_softmax(1)
        labels = torch.stack([table[i] for i in rows]).requires_grad_()
        soft = labels.softmax(1)
        if epoch < WARMUP:
            loss = -(observed * log_p).sum() / size
        else:
            loss = (p * (log_p - soft.log())).sum() / (size * C)
        if WARMUP <= epoch < WARMUP + RELABEL:
            loss = loss - ALPHA * (observed * soft.log()).sum() / size
            loss = loss - BETA * (p * log_p).sum() / (size * C)
        sgd.zero_grad()
        loss.backward()
        sgd.step()
        if WARMUP <= epoch < WARMUP + RELABEL:
            assert labels.grad is not None
            for i, row in zip(rows, labels.detach() - LAMBDA * labels.grad, strict=True):
                table[i] = row
        losses.append(loss.detach())
    return dict(net.named_parameters()), table, losses


def test_all_stages_equal_the_transcription(run: tuple[Pencil, Recorder]) -> None:
    model, recorder = run
    weights, table, losses = transcription(recorder)
    for name, value in model.network.named_parameters():
        torch.testing.assert_close(value, weights[name], rtol=1e-9, atol=1e-12, msg=name)
    for i, row in table.items():
        torch.testing.assert_close(model.table.logits[i], row, rtol=1e-9, atol=1e-11)
    for output, loss in zip(recorder.outputs, losses, strict=True):
        torch.testing.assert_close(output["loss"], loss, rtol=1e-9, atol=1e-12)


def test_labels_move_in_the_second_stage_only(run: tuple[Pencil, Recorder]) -> None:
    model, recorder = run
    tables = [state["table.logits"] for state in recorder.states] + [model.table.logits]
    moved = [not torch.equal(before, after) for before, after in itertools.pairwise(tables)]
    assert moved == [False] * STEPS + [True] * 2 * STEPS + [False] * STEPS
    with_soft_labels = ["soft_labels" in output for output in recorder.outputs]
    assert with_soft_labels == [False] * STEPS + [True] * 3 * STEPS


def test_a_step_moves_the_rows_of_its_own_samples_only(run: tuple[Pencil, Recorder]) -> None:
    states, step = run[1].states, WARMUP * STEPS
    before, after = (states[s]["table.logits"] for s in (step, step + 1))
    rows = (before != after).any(dim=1).nonzero().flatten()
    assert torch.equal(rows, run[1].batches[step]["train"].index.sort().values)


def test_soft_labels_are_those_the_step_trained_on(run: tuple[Pencil, Recorder]) -> None:
    recorder = run[1]
    for step in range(WARMUP * STEPS, EPOCHS * STEPS):
        index = recorder.batches[step]["train"].index
        expected = recorder.states[step]["table.logits"][index].softmax(dim=1)
        torch.testing.assert_close(recorder.outputs[step]["soft_labels"], expected)


@pytest.mark.parametrize(("alpha", "turns"), [(0.5 / C, True), (1 / C, False), (0.4, False)])
def test_a_label_turns_only_if_compatibility_weighs_less_than_a_class(
    alpha: float, turns: bool
) -> None:
    """Where a prediction stands firm, the label rests at (p/C + α · observed) / (1/C + α)."""
    model = Pencil(network(), C, SGD, compatibility_weight=alpha, label_lr=4.0, sharpness=2.0)
    model.prepare(torch.tensor([1]))
    model.table = model.table.double()
    p = torch.tensor([[0.7, 0.1, 0.1, 0.1]], dtype=torch.float64)

    class Firm(torch.nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return p.log()

    model.network = Firm()
    model.descend = lambda loss: None  # type: ignore[method-assign]
    one = torch.tensor([1])
    train = Batch(torch.zeros(1, 1, 8, 8), one, one, torch.zeros(1, dtype=torch.int64))
    for _ in range(80):
        model._joint_step(train)
    label = model.table.log_soft(train.index).exp()
    observed = torch.eye(C, dtype=torch.float64)[[1]]
    expected = (p / C + alpha * observed) / (1 / C + alpha)
    torch.testing.assert_close(label, expected, rtol=0, atol=1e-4)
    assert bool(label.argmax() == 0) == turns


def test_table_starts_sharp_and_uniform_where_nothing_is_known() -> None:
    table = LabelTable(torch.tensor([2, UNKNOWN, 0]), 3, sharpness=10.0)
    soft = table.log_soft(torch.tensor([0, 1, 2])).exp()
    assert soft.argmax(dim=1).tolist()[::2] == [2, 0]
    assert float(soft[0, 2]) == pytest.approx(1 / (1 + 2 * torch.e**-10))
    torch.testing.assert_close(soft[1], torch.full((3,), 1 / 3))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"relabel_epochs": -1}, "relabel_epochs must be 0 or more, got -1"),
        ({"compatibility_weight": -0.1}, "compatibility_weight must be 0 or more, got -0.1"),
        ({"entropy_weight": -0.1}, "entropy_weight must be 0 or more, got -0.1"),
        ({"label_lr": -1.0}, "label_lr must be 0 or more, got -1.0"),
        ({"sharpness": 0.0}, "sharpness must be positive, got 0.0"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Pencil(network(), C, SGD, **arguments)
