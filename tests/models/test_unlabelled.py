"""Samples without a label: nothing to learn from in warm-up, as good as any other after it."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from mln_lightning.batch import UNKNOWN, Batch, TrainBatch
from mln_lightning.callbacks import LabelQualityCurve, Reseed
from mln_lightning.models import MetaLabelNet, NoisyLabelModule, Supervised
from tests.models.test_base import ADAM, SGD, Watch, batches, network, trainer

DECAYING = functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9, weight_decay=0.1)


def with_unlabelled_batches(loader: DataLoader[TrainBatch], number: int) -> DataLoader[TrainBatch]:
    """The same batches, then as many without labels as asked for."""
    made = list(loader.dataset)
    for labelled in made[:number]:
        hidden = torch.full_like(labelled["train"].labels, UNKNOWN)
        train = labelled["train"]._replace(images=labelled["train"].images + 3, labels=hidden)
        made.append(TrainBatch(train=train, meta=labelled["meta"]))
    return DataLoader(made, batch_size=None)  # type: ignore[arg-type]


def fitted(model: NoisyLabelModule, loader: DataLoader[TrainBatch], epochs: int) -> int:
    fit = trainer(epochs, LabelQualityCurve(3), Watch())
    fit.fit(model, loader)
    return fit.global_step


def test_batches_without_labels_change_nothing_but_count_as_steps() -> None:
    # Momentum and weight decay would move the weights if these were steps with a gradient of zero.
    plain, mixed = (Supervised(without_dropout(), 3, DECAYING) for _ in range(2))
    assert fitted(plain, batches(), epochs=3) == 12
    assert fitted(mixed, with_unlabelled_batches(batches(), 2), epochs=3) == 18
    for name, value in plain.state_dict().items():
        assert torch.equal(value, mixed.state_dict()[name]), name


def without_dropout() -> nn.Module:
    full = network()
    assert isinstance(full, nn.Sequential)
    return nn.Sequential(*(layer for layer in full if not isinstance(layer, nn.Dropout)))


def test_a_batch_with_some_labels_is_learned_from_those() -> None:
    model = Supervised(without_dropout(), 3, functools.partial(torch.optim.SGD, lr=0.1))
    expected = without_dropout()
    images, labels = torch.randn(6, 1, 4, 4), torch.tensor([0, UNKNOWN, 2, UNKNOWN, 1, 1])
    batch = Batch(images, labels, torch.zeros(6, dtype=torch.int64), torch.arange(6))
    loader = DataLoader([TrainBatch(train=batch, meta=batch)], batch_size=None)  # type: ignore[arg-type]
    fitted(model, loader, epochs=1)
    known = labels != UNKNOWN
    loss = cross_entropy(expected(images[known]), labels[known])
    loss.backward()
    for parameter, after in zip(expected.parameters(), model.network.parameters(), strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter - 0.1 * parameter.grad, after)


@pytest.mark.parametrize("number", [0, 2])
def test_after_warm_up_they_are_trained_on(number: int) -> None:
    watch = Watch()
    model = MetaLabelNet(network(), 3, SGD, ADAM, warmup_epochs=1)
    trainer(2, watch, Reseed(0)).fit(model, with_unlabelled_batches(batches(), number))
    assert ["loss" in output for output in watch.outputs[: 4 + number]] == [True] * 4 + [
        False
    ] * number
    assert all("soft_labels" in output for output in watch.outputs[4 + number :])
