"""Every step of a method on blobs in float64, with what it started from and what it left."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn

from mln_lightning.batch import Batch, StepOutput, TrainBatch
from mln_lightning.callbacks import Reseed
from mln_lightning.data import DatasetInfo, NoisyLabelDataModule
from mln_lightning.datasets import blobs
from mln_lightning.models import NoisyLabelModule
from mln_lightning.noise import ClassConditionalNoise, symmetric

INFO = DatasetInfo(
    name="blobs", num_classes=4, shape=(1, 8, 8), mean=(0.5,), std=(0.3,), num_train=400
)
C = 4


class Step(NamedTuple):
    """One call of `noisy_step`."""

    epoch: int
    batch: Batch
    before: dict[str, Tensor]
    after: dict[str, Tensor]
    output: StepOutput


def small_network(seed: int = 0) -> nn.Module:
    """Smooth, without dropout and batch statistics: 64 → 8 → 4."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, C))


def forward(parameters: dict[str, Tensor], images: Tensor) -> Tensor:
    """Logits of `small_network` written out, from the state of a module that holds it."""
    w = [parameters[f"network.{name}"] for name in ("1.weight", "1.bias", "3.weight", "3.bias")]
    hidden: Tensor = (images.flatten(1) @ w[0].T + w[1]).tanh()
    return hidden @ w[2].T + w[3]


def leaves(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The network's parameters out of a state, as leaves that require grad."""
    names = ("1.weight", "1.bias", "3.weight", "3.bias")
    return {f"network.{n}": state[f"network.{n}"].clone().requires_grad_() for n in names}


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def watched(
    model: NoisyLabelModule, folder: Path, *, epochs: int = 1
) -> tuple[list[Step], NoisyLabelDataModule]:
    """Train on 400 blobs with 40 % symmetric noise; eleven batches an epoch."""
    noise = ClassConditionalNoise(symmetric(C, 0.4))
    data = NoisyLabelDataModule(blobs, INFO, noise, num_meta=40, num_val=0, batch_size=32)
    steps: list[Step] = []
    record = model.noisy_step

    def noisy_step(batch: TrainBatch) -> StepOutput:
        before = state(model)
        output = record(batch)
        train = batch["train"]
        steps.append(Step(model.current_epoch, train, before, state(model), output))
        return output

    model.noisy_step = noisy_step  # type: ignore[method-assign]
    trainer = Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        precision="64-true",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
        default_root_dir=folder,
        callbacks=[Reseed(0)],
    )
    trainer.fit(model, datamodule=data)
    return steps, data
