"""A short fit in float64 on the blobs that notes every batch, and its network written by hand."""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.nn.functional import batch_norm, linear

from mln_lightning.batch import Batch, StepOutput, TrainBatch
from mln_lightning.data import DatasetInfo, NoisyLabelDataModule
from mln_lightning.datasets import blobs
from mln_lightning.models import NoisyLabelModule
from mln_lightning.noise import ClassConditionalNoise, symmetric

C = 4
LR, MOMENTUM = 0.05, 0.9
SGD = functools.partial(torch.optim.SGD, lr=LR, momentum=MOMENTUM)
BLOBS = DatasetInfo("blobs", C, (1, 8, 8), (0.5,), (0.3,), 400)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, C)
    )


def by_hand(theta: list[Tensor], images: Tensor) -> tuple[Tensor, Tensor]:
    """Features and logits of `network` in train mode, from its parameters in their order."""
    hidden = linear(images.flatten(1), theta[0], theta[1])
    features = batch_norm(hidden, None, None, theta[2], theta[3], training=True).tanh()
    return features, linear(features, theta[4], theta[5])


def start(module: nn.Module) -> list[Tensor]:
    """Parameters of a module before a fit, as leaves in float64."""
    return [p.detach().double().clone().requires_grad_() for p in module.parameters()]


class Fit(NamedTuple):
    """What a fit saw and said, step by step."""

    batches: list[TrainBatch]
    outputs: list[StepOutput]
    labels: Tensor


class _Notes(Callback):
    def __init__(self) -> None:
        self.batches: list[TrainBatch] = []
        self.outputs: list[StepOutput] = []

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: TrainBatch, batch_idx: int
    ) -> None:
        copies = {part: Batch(*(c.clone() for c in batch[part])) for part in ("train", "meta")}
        self.batches.append(TrainBatch(train=copies["train"], meta=copies["meta"]))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: StepOutput, *_: object
    ) -> None:
        self.outputs.append(outputs)


def fit(
    model: NoisyLabelModule, *, epochs: int = 2, steps: int = 3, unlabelled: int = 0, size: int = 24
) -> Fit:
    """``steps`` batches in each of ``epochs`` epochs, float64, 40 % of the labels wrong."""
    noise = ClassConditionalNoise(symmetric(C, 0.4))
    data = NoisyLabelDataModule(
        blobs,
        BLOBS,
        noise,
        num_meta=40,
        num_val=40,
        num_unlabelled=unlabelled,
        batch_size=size,
        meta_batch_size=9,
    )
    notes = _Notes()
    Trainer(
        max_epochs=epochs,
        limit_train_batches=steps,
        limit_val_batches=0,
        accelerator="cpu",
        precision="64-true",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[notes],
    ).fit(model, datamodule=data)
    return Fit(notes.batches, notes.outputs, data.train_labels)


def same(got: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-11)
