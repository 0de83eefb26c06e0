"""How well a trained network does on every clean test set there is."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from mln_lightning.batch import Batch
from mln_lightning.data import NoisyLabelDataModule
from mln_lightning.data.parts import whole
from mln_lightning.metrics.human import human_agreement, read_soft_labels
from mln_lightning.models import NoisyLabelModule


def soft_test_labels(data: NoisyLabelDataModule) -> Tensor | None:
    """People's distributions over the classes of the test images ``(n, C)``, if there are any.

    Args:
        data: set up.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: it does not fit the test set, or there is none.
    """
    if data.test_soft_labels is None:
        return None
    test = data.parts.test
    if test is None:
        raise ValueError("test_soft_labels needs a test set, and the data set has none.")
    return read_soft_labels(data.test_soft_labels, test.source.labels)[test.index]


def test_accuracy(
    trainer: Trainer, model: NoisyLabelModule, data: NoisyLabelDataModule
) -> dict[str, float]:
    """``test/accuracy`` of the model's present weights, a fraction; nothing without a test set.

    All processes have to call this; each looks at its share of the test set.

    Args:
        trainer: has trained the model, or could.
        model: with the weights to test; keeps the confusions.
        data: set up.
    """
    if data.parts.test is None:
        return {}
    trainer.test(model, datamodule=data, verbose=False)
    return {"test/accuracy": float(trainer.callback_metrics["test/accuracy"])}


def further_metrics(
    model: NoisyLabelModule,
    data: NoisyLabelDataModule,
    device: torch.device,
    *,
    human: Tensor | None = None,
) -> dict[str, float]:
    """Metrics of the model's present weights beside `test_accuracy`; one process does this alone.

    Args:
        model: with the weights to test; stays on ``device``.
        data: set up.
        device: where to compute.
        human: from `soft_test_labels`.

    Returns:
        fractions by name: ``test_<name>/accuracy`` for further test sets;
        ``test/human_cross_entropy`` and ``test/human_kl``, nats, where the data have soft test
        labels.
    """
    found: dict[str, float] = {}
    for name, part in data.also_test.items():
        logits, labels = logits_of(model, data, data.in_order(whole(part)), device)
        right = (logits.argmax(dim=1) == labels).double().mean()
        found[f"test_{name}/accuracy"] = float(right)
    if human is not None and data.parts.test is not None:
        logits, _ = logits_of(model, data, data.in_order(data.parts.test), device)
        for name, value in human_agreement(logits.softmax(dim=1), human).items():
            found[f"test/human_{name}"] = value
    return found


@torch.no_grad()
def logits_of(
    model: NoisyLabelModule,
    data: NoisyLabelDataModule,
    batches: Iterable[Batch],
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """Logits ``(n, C)`` float32 and labels ``(n,)`` int64, both on the CPU.

    Args:
        model: put in eval mode for the pass and back; stays on ``device``.
        data: knows how images are normalised.
        batches: of uint8 images, from a loader.
        device: where to compute.
    """
    training = model.training
    model.to(device).eval()
    logits, labels = [], []
    for batch in batches:
        images = data.normalize(batch.images.to(device)).to(model.dtype)
        logits.append(model(images).float().cpu())
        labels.append(batch.labels)
    model.train(training)
    return torch.cat(logits), torch.cat(labels)
