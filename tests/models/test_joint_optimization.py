"""Joint Optimization against a transcription of its two steps, and its table of labels."""

from __future__ import annotations

import copy
import functools
import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mln_lightning.losses import prior_kl
from mln_lightning.models import JointOptimization
from tests.models.recorded import STEPS, C, Recorder, data, fit, network

SGD = functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=1e-3)
ALPHA, BETA, WINDOW = 1.2, 0.8, 2
WARMUP, RELABEL, EPOCHS = 2, 2, 6


@pytest.fixture(scope="module")
def run() -> tuple[JointOptimization, Recorder]:
    model = JointOptimization(
        network(),
        C,
        SGD,
        warmup_epochs=WARMUP,
        relabel_epochs=RELABEL,
        prior_weight=ALPHA,
        entropy_weight=BETA,
        window=WINDOW,
    )
    recorder, _ = fit(model, EPOCHS)
    return model, recorder


def transcription(recorder: Recorder) -> tuple[dict[str, Tensor], list[Tensor]]:
    """The paper's two steps on the same batches: last weights, and the labels of every epoch."""
    labels: dict[int, Tensor] = {}
    past: dict[int, list[Tensor]] = {}
    found: list[Tensor] = []
    net = network().double()
    fresh = copy.deepcopy(net)
    sgd = SGD(net.parameters())
    for epoch in range(EPOCHS):
        if WARMUP <= epoch <= WARMUP + RELABEL:
            for i, predictions in past.items():
                labels[i] = sum(predictions[-WINDOW:]) / len(predictions[-WINDOW:])
        if epoch == WARMUP + RELABEL:
            net = copy.deepcopy(fresh)
            sgd = SGD(net.parameters())
        for batch in recorder.batches[epoch * STEPS : (epoch + 1) * STEPS]:
            train = batch["train"]
            rows = train.index.tolist()
            for i, label in zip(rows, train.labels.tolist(), strict=True):
                labels.setdefault(i, torch.eye(C, dtype=torch.float64)[label])
            y = torch.stack([labels[i] for i in rows])
            logits = net(train.images)
            p, log_p = logits.softmax(1), logits.log_softmax(1)
            loss = -(y * log_p).sum() / len(rows)
            if epoch < WARMUP + RELABEL:
                loss = loss - ALPHA * (p.mean(0) * C).log().sum() / C
                loss = loss - BETA * (p * log_p).sum() / len(rows)
                for i, row in zip(rows, p.detach(), strict=True):
                    past.setdefault(i, []).append(row)
            sgd.zero_grad()
            loss.backward()
            sgd.step()
            found.append(y)
    return dict(net.named_parameters()), found


def test_both_steps_equal_the_transcription(run: tuple[JointOptimization, Recorder]) -> None:
    model, recorder = run
    weights, labels = transcription(recorder)
    for name, value in model.network.named_parameters():
        torch.testing.assert_close(value, weights[name], rtol=1e-9, atol=1e-12, msg=name)
    for step, (output, expected) in enumerate(zip(recorder.outputs, labels, strict=True)):
        if step < WARMUP * STEPS:
            assert "soft_labels" not in output
        else:
            torch.testing.assert_close(output["soft_labels"], expected, rtol=1e-9, atol=1e-12)


def test_labels_change_at_the_start_of_the_epochs_that_relabel(
    run: tuple[JointOptimization, Recorder],
) -> None:
    model, recorder = run
    tables = [state["labels"] for state in recorder.states] + [model.labels]
    changed = [
        step
        for step, (before, after) in enumerate(itertools.pairwise(tables))
        if not torch.equal(before, after)
    ]
    assert changed == [epoch * STEPS for epoch in range(WARMUP, WARMUP + RELABEL + 1)]
    assert torch.allclose(tables[-1][data_rows()].sum(dim=1), torch.ones(172).double())


def data_rows() -> Tensor:
    module = data()
    module.setup()
    return module.train_index


def test_samples_outside_the_training_part_keep_an_empty_row(
    run: tuple[JointOptimization, Recorder],
) -> None:
    outside = torch.ones(200, dtype=torch.bool)
    outside[data_rows()] = False
    assert int(outside.sum()) == 28
    assert not run[0].labels[outside].any()


def test_without_predictions_the_observed_labels_stay() -> None:
    model = JointOptimization(network(), C, SGD, warmup_epochs=0, relabel_epochs=1)
    recorder, _ = fit(model, 1)
    first = recorder.outputs[0]["soft_labels"]
    assert torch.equal(first.argmax(dim=1), recorder.batches[0]["train"].labels)
    assert torch.equal(first.amax(dim=1), torch.ones(32))


def test_a_label_is_the_mean_of_the_last_predictions_of_its_own_sample() -> None:
    model = JointOptimization(network(), C, SGD, window=3)
    model.prepare(torch.zeros(5, dtype=torch.int64))
    rows = torch.eye(C)
    for seen in (0, 1, 1, 2, 3):  # sample 4 is seen five times, sample 2 once
        model._remember(torch.tensor([4]), rows[[seen]])
    model._remember(torch.tensor([2]), rows[[3]])
    model._relabel()
    expected = rows[[0, 0, 3, 0, 0]]
    expected[4] = rows[[1, 2, 3]].mean(dim=0)
    torch.testing.assert_close(model.labels, expected)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(2, 5), st.integers(0, 1000))
def test_prior_kl_is_zero_for_uniform_means_only(size: int, classes: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(size, classes, generator=generator, dtype=torch.float64)
    mean = logits.softmax(dim=1).mean(dim=0)
    expected = sum(math.log(1 / (classes * float(m))) / classes for m in mean)
    assert float(prior_kl(logits)) == pytest.approx(expected, abs=1e-12)
    assert float(prior_kl(torch.cat([logits.roll(i, dims=1) for i in range(classes)]))) == (
        pytest.approx(0, abs=1e-12)
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"relabel_epochs": -1}, "relabel_epochs must be 0 or more, got -1"),
        ({"prior_weight": -0.1}, "prior_weight must be 0 or more, got -0.1"),
        ({"entropy_weight": -0.1}, "entropy_weight must be 0 or more, got -0.1"),
        ({"window": 0}, "window must be at least 1, got 0"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        JointOptimization(network(), C, SGD, **arguments)
