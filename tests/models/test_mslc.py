"""MSLC against a transcription with a second-order graph, and what its label table keeps."""

from __future__ import annotations

import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import cross_entropy, linear

from mln_lightning.correctors import MixingShares, mixed
from mln_lightning.models import MSLC
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

META_LR = 5.0  # of plain SGD, which shows the scale of the meta gradient
META = functools.partial(torch.optim.SGD, lr=META_LR)


def share(phi: list[Tensor], loss: Tensor) -> Tensor:
    """One of the two nets, written out."""
    hidden = linear(loss[:, None], phi[0], phi[1]).clamp(min=0)
    return 1 / (1 + (-linear(hidden, phi[2], phi[3])).exp())


def training_loss(phi: list[Tensor], losses: list[Tensor]) -> Tensor:
    """Mean of the mixed losses of the observed, the earlier and the present class."""
    of_y, of_z, of_now = losses
    a, b = share(phi[:4], of_y.detach())[:, 0], share(phi[4:], of_z.detach())[:, 0]
    return (a * of_y + (1 - a) * (b * of_z + (1 - b) * of_now)).mean()


def transcribed(
    theta: list[Tensor], phi: list[Tensor], run: Fit, alpha: float, warmup: int
) -> tuple[Tensor, Tensor]:
    """Steps by double backward; moves ``theta`` and ``phi``, returns the table and the losses."""
    classes = torch.eye(C, dtype=torch.float64)
    table = torch.zeros(len(run.labels), C, dtype=torch.float64)
    for row, label in enumerate(run.labels):
        if label >= 0:
            table[row, label] = 1.0
    sgd = torch.optim.SGD(theta, lr=LR, momentum=MOMENTUM)
    noted = []
    for number, batch in enumerate(run.batches):
        train, meta = batch["train"], batch["meta"]
        logits = by_hand(theta, train.images)[1]
        log_p, p = logits.log_softmax(1), logits.softmax(1).detach()
        guesses = (train.labels, table[train.index].argmax(1), logits.argmax(1))
        losses = [-log_p[torch.arange(len(p)), k] for k in guesses]
        if number < warmup:
            loss, meta_loss = losses[0].mean(), torch.tensor(0.0)
            table[train.index] = p
        else:
            grads = torch.autograd.grad(training_loss(phi, losses), theta, create_graph=True)
            virtual = [t - alpha * g for t, g in zip(theta, grads, strict=True)]
            meta_loss = cross_entropy(by_hand(virtual, meta.images)[1], meta.labels)
            found = torch.autograd.grad(meta_loss, phi, retain_graph=True)
            with torch.no_grad():
                for tensor, grad in zip(phi, found, strict=True):
                    tensor -= META_LR * grad
                a, b = share(phi[:4], losses[0]), share(phi[4:], losses[1])
                kept = b * table[train.index] + (1 - b) * p
                table[train.index] = a * classes[train.labels] + (1 - a) * kept
            loss = training_loss(phi, losses)
        sgd.zero_grad()
        loss.backward(inputs=theta)
        sgd.step()
        noted.append(torch.stack([loss.detach(), meta_loss.detach()]))
    return table, torch.stack(noted)


@pytest.mark.parametrize(("warmup_epochs", "alpha"), [(1, "current"), (0, 0.8)])
def test_three_epochs_equal_the_transcription(warmup_epochs: int, alpha: str | float) -> None:
    model = MSLC(
        network(),
        C,
        SGD,
        META,
        warmup_epochs=warmup_epochs,
        virtual_lr=alpha,  # type: ignore[arg-type]
    )
    theta, phi = start(model.network), start(model.shares)
    first = [tensor.detach().clone() for tensor in phi]
    run = fit(model, epochs=3, steps=4, size=70)  # four batches make an epoch
    table, losses = transcribed(
        theta, phi, run, LR if alpha == "current" else float(alpha), 4 * warmup_epochs
    )
    got = [torch.stack([o["loss"], o.get("meta_loss", o["loss"] * 0)]) for o in run.outputs]
    same(torch.stack(got), losses)
    same(model.earlier, table)
    for left, right in zip(model.network.parameters(), theta, strict=True):
        same(left.detach(), right.detach())
    for left, right, before in zip(model.shares.parameters(), phi, first, strict=True):
        same(left.detach(), right.detach())
        assert not torch.equal(left.detach(), before), "not learned"


def test_warm_up_keeps_predictions_and_samples_that_were_not_seen_their_observed_label() -> None:
    model = MSLC(network(), C, SGD, META, warmup_epochs=1)
    run = fit(model, epochs=1, steps=1)
    index = run.batches[0]["train"].index
    same(model.earlier[index], run.outputs[0]["logits"].softmax(dim=1))
    rest = torch.ones(len(run.labels), dtype=torch.bool)
    rest[index] = False
    unknown = run.labels < 0
    assert torch.equal(model.earlier[rest & ~unknown].argmax(1), run.labels[rest & ~unknown])
    assert not model.earlier[unknown].any()
    assert unknown.sum() == 80  # the meta set and the validation part


def test_samples_without_a_label_are_left_out() -> None:
    model = MSLC(network(), C, SGD, META, warmup_epochs=0)
    run = fit(model, epochs=1, steps=2, unlabelled=200)
    for batch, output in zip(run.batches, run.outputs, strict=True):
        hidden = batch["train"].labels < 0
        assert 0 < hidden.sum() < len(hidden)
        assert len(output["soft_labels"]) == len(hidden) - hidden.sum()
        assert not model.earlier[batch["train"].index[hidden]].any()


@settings(max_examples=20)
@given(seed=st.integers(0, 10_000))
def test_the_mix_of_distributions_is_a_distribution(seed: int) -> None:
    torch.manual_seed(seed)
    logits, labels = torch.randn(6, C) * 5, torch.randint(C, (6,))
    earlier, present = torch.randn(6, C).softmax(1), torch.randn(6, C).softmax(1)
    shares = MixingShares()(logits, labels, earlier)
    assert (shares >= 0).all()
    soft = mixed(shares, torch.eye(C)[labels], earlier, present)
    assert (soft >= 0).all()
    torch.testing.assert_close(soft.sum(dim=1), torch.ones(6))
