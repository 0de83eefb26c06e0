"""DMLP against a transcription: the closed form, its gradient, the purification and a step."""

from __future__ import annotations

import copy
import functools
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch import Trainer
from sklearn.linear_model import Ridge
from torch import Tensor

from mln_lightning.models import DMLP
from mln_lightning.ridge import ridge
from tests.models.recorded import STEPS, C, Recorder, fit, network

SGD = functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=1e-3)
ADAM = functools.partial(torch.optim.Adam, lr=0.03, weight_decay=1e-4)
PENALTY, PURIFY, WARMUP, EPOCHS = 0.3, 7, 1, 3
HIDDEN = 30  # of the training samples have no label


def model(**options: Any) -> DMLP:
    arguments = {"warmup_epochs": WARMUP, "purify_steps": PURIFY, "ridge_penalty": PENALTY}
    return DMLP(network(), C, SGD, ADAM, **(arguments | options))


@pytest.fixture(scope="module")
def run() -> tuple[DMLP, Recorder, Trainer]:
    made = model()
    recorder, trainer = fit(made, EPOCHS, num_unlabelled=HIDDEN)
    return made, recorder, trainer


def part_of(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def transcription(recorder: Recorder, trainer: Trainer) -> tuple[Tensor, dict[str, Tensor]]:
    """Purified labels (n, C) and last weights, from the warmed-up network on."""
    net = network().double()
    net.load_state_dict(part_of(recorder.states[WARMUP * STEPS], "network."))
    body = copy.deepcopy(net[:-1]).eval()
    data = trainer.datamodule  # type: ignore[attr-defined]
    parts = data.parts

    def encode(part: Any) -> Tensor:
        with torch.no_grad():
            return body(data.normalize(part.source.images.fetch(part.index)).double())

    f, fm = encode(parts.train), encode(parts.meta)
    target = torch.eye(C, dtype=torch.float64)[parts.meta.labels]
    w, b = (p.detach().clone().requires_grad_() for p in net[-1].parameters())
    inverse = torch.linalg.inv(f.T @ f + len(f) * PENALTY * torch.eye(6, dtype=torch.float64))
    adam = ADAM([w, b])
    for _ in range(PURIFY):
        star = inverse @ f.T @ (f @ w.T + b).softmax(1)
        adam.zero_grad()
        ((fm @ star - target) ** 2).mean().backward()
        adam.step()
    purified = (f @ w.T + b).softmax(1).detach()

    place = {int(i): n for n, i in enumerate(parts.train.index)}
    sgd = SGD(net.parameters())
    sgd.load_state_dict(warm_momentum(recorder, sgd))
    for batch in recorder.batches[WARMUP * STEPS :]:
        train = batch["train"]
        soft = purified[[place[int(i)] for i in train.index]]
        sgd.zero_grad()
        (-(soft * net(train.images).log_softmax(1)).sum() / len(soft)).backward()
        sgd.step()
    return purified, dict(net.named_parameters())


def warm_momentum(recorder: Recorder, sgd: torch.optim.Optimizer) -> dict[str, Any]:
    """The optimiser's state after the warm-up, from a warm-up of one's own."""
    net = network().double()
    own = SGD(net.parameters())
    for batch in recorder.batches[: WARMUP * STEPS]:
        known = batch["train"].labels >= 0
        logits = net(batch["train"].images[known])
        own.zero_grad()
        torch.nn.functional.cross_entropy(logits, batch["train"].labels[known]).backward()
        own.step()
    return own.state_dict()


def test_purification_and_training_equal_the_transcription(
    run: tuple[DMLP, Recorder, Trainer],
) -> None:
    made, recorder, trainer = run
    purified, weights = transcription(recorder, trainer)
    index = trainer.datamodule.train_index  # type: ignore[attr-defined]
    torch.testing.assert_close(made.purified[index], purified, rtol=1e-9, atol=1e-11)
    for name, value in made.network.named_parameters():
        torch.testing.assert_close(value, weights[name], rtol=1e-9, atol=1e-11, msg=name)


def test_purified_labels_are_made_once_and_used_by_index(
    run: tuple[DMLP, Recorder, Trainer],
) -> None:
    made, recorder, trainer = run
    tables = [state["purified"] for state in recorder.states] + [made.purified]
    changed = [not torch.equal(a, b) for a, b in itertools.pairwise(tables)]
    assert changed == [step == WARMUP * STEPS for step in range(EPOCHS * STEPS)]
    for step, output in enumerate(recorder.outputs):
        if step < WARMUP * STEPS:
            assert "soft_labels" not in output
        else:
            index = recorder.batches[step]["train"].index
            assert torch.equal(output["soft_labels"], made.purified[index])
    inside = torch.zeros(200, dtype=torch.bool)
    inside[trainer.datamodule.train_index] = True  # type: ignore[attr-defined]
    torch.testing.assert_close(made.purified.sum(dim=1), inside.double())


def test_samples_without_a_label_are_learned_too(run: tuple[DMLP, Recorder, Trainer]) -> None:
    _, recorder, _ = run
    unlabelled = [bool((batch["train"].labels < 0).any()) for batch in recorder.batches]
    assert all(unlabelled)
    rows = [len(output["logits"]) for output in recorder.outputs]
    assert max(rows[: WARMUP * STEPS]) < 32
    assert rows[WARMUP * STEPS :] == [32] * (EPOCHS - WARMUP) * STEPS


def test_an_image_gets_the_label_that_the_table_has(run: tuple[DMLP, Recorder, Trainer]) -> None:
    made, recorder, _ = run
    train = recorder.batches[-1]["train"]
    torch.testing.assert_close(made.soft_labels(train.images), made.purified[train.index])


def test_purification_makes_the_regression_right_about_the_meta_set(
    run: tuple[DMLP, Recorder, Trainer],
) -> None:
    """Labels start as the warmed-up head's predictions and their meta loss falls."""
    losses: dict[int, Tensor] = {}
    for steps in (0, 60):
        made = model(purify_steps=steps)
        _, trainer = fit(made, 2)
        parts = trainer.datamodule.parts  # type: ignore[attr-defined]
        target = torch.eye(C, dtype=torch.float64)[parts.meta.labels]
        trained = made._encoded(parts.train), made._encoded(parts.meta)
        losses[steps] = made.meta_loss(*trained, target).detach()
        if steps == 0:
            expected = made.encoder[-1](trained[0]).softmax(dim=1)
            torch.testing.assert_close(made.purified[parts.train.index], expected)
    assert float(losses[60]) < 0.9 * float(losses[0])


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 12), st.integers(1, 6), st.floats(0.01, 10), st.integers(0, 1000))
def test_ridge_equals_scikit_learn(size: int, width: int, penalty: float, seed: int) -> None:
    draws = np.random.default_rng(seed)
    features, targets = draws.normal(size=(size, width)), draws.normal(size=(size, 3))
    expected = Ridge(alpha=penalty * size, fit_intercept=False).fit(features, targets).coef_.T
    found = ridge(torch.tensor(features), torch.tensor(targets), penalty)
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-9, atol=1e-11)


def test_meta_gradient_equals_numerical_differences() -> None:
    made = model().double()
    generator = torch.Generator().manual_seed(0)
    train = torch.randn(9, 6, dtype=torch.float64, generator=generator)
    meta = torch.randn(5, 6, dtype=torch.float64, generator=generator)
    labels = torch.eye(C, dtype=torch.float64)[torch.randint(C, (5,), generator=generator)]
    loss = made.meta_loss(train, meta, labels)
    parameters = list(made.generator.parameters())
    grads = torch.autograd.grad(loss, parameters)
    for parameter, grad in zip(parameters, grads, strict=True):
        flat = parameter.data.view(-1)
        for i in range(len(flat)):
            ends = []
            for sign in (1, -1):
                flat[i] += sign * 1e-5
                ends.append(float(made.meta_loss(train, meta, labels).detach()))
                flat[i] -= sign * 1e-5
            numerical = (ends[0] - ends[1]) / 2e-5
            assert float(grad.view(-1)[i]) == pytest.approx(numerical, abs=1e-9)


@pytest.mark.parametrize(("batch", "sizes"), [(10, [10]), (99, [10]), (4, [4, 3, 3]), (5, [5, 5])])
def test_purification_goes_over_all_samples_in_equal_parts(batch: int, sizes: list[int]) -> None:
    torch.manual_seed(0)
    steps = list(model(purify_batch=batch, purify_steps=2 * len(sizes))._purify_batches(10))
    assert [len(rows) for rows in steps] == 2 * sizes
    first, again = steps[: len(sizes)], steps[len(sizes) :]
    assert torch.equal(torch.cat(first).sort().values, torch.arange(10))
    assert not torch.equal(torch.cat(first), torch.arange(10))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"purify_steps": -1}, "purify_steps must be 0 or more, got -1"),
        ({"purify_batch": 0}, "purify_batch must be at least 1, got 0"),
        ({"ridge_penalty": 0.0}, "ridge_penalty must be positive, got 0.0"),
        ({"head": "9"}, "no nn.Linear named '9'"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        model(**arguments)
