"""A run on the blobs in float64 that keeps its batches, for transcriptions to repeat."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from mln_lightning.batch import StepOutput, TrainBatch
from mln_lightning.callbacks import Reseed
from mln_lightning.data import DatasetInfo, NoisyLabelDataModule
from mln_lightning.datasets import blobs
from mln_lightning.models import NoisyLabelModule
from mln_lightning.noise import ClassConditionalNoise, symmetric

C = 4
STEPS = 5  # of 32 samples, each epoch: 12 of 172 training samples are left out


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, C)
    )


@dataclass
class Recorder(Callback):
    """Keeps batches and outputs of all steps, and copies of the model's state before each."""

    batches: list[TrainBatch] = field(default_factory=list)
    outputs: list[StepOutput] = field(default_factory=list)
    states: list[dict[str, torch.Tensor]] = field(default_factory=list)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.batches.append(batch)
        self.states.append({k: v.clone() for k, v in pl_module.state_dict().items()})

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any
    ) -> None:
        self.outputs.append(outputs)


def data(**options: Any) -> NoisyLabelDataModule:
    return NoisyLabelDataModule(
        lambda: blobs(num_train=200, num_test=8),
        DatasetInfo("blobs", C, (1, 8, 8), (0.5,), (0.3,)),
        ClassConditionalNoise(symmetric(C, rate=0.4)),
        num_meta=28,
        batch_size=32,
        meta_batch_size=10,
        **options,
    )


def fit(model: NoisyLabelModule, epochs: int, **options: Any) -> tuple[Recorder, Trainer]:
    """Train in float64 on the CPU; ``options`` are those of the data module."""
    recorder = Recorder()
    trainer = Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        precision="64-true",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        callbacks=[Reseed(0), recorder],
    )
    trainer.fit(model, datamodule=data(**options))
    assert trainer.global_step == len(recorder.batches) == epochs * STEPS
    return recorder, trainer
