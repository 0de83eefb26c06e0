"""The library's own training steps, taken one at a time outside a fit."""

from __future__ import annotations

import functools
from typing import Any, Protocol

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.optim import Optimizer

from mln_lightning.batch import Batch, TrainBatch
from mln_lightning.meta import Backend
from mln_lightning.models import MetaLabelNet, NoisyLabelModule, Supervised

NUM_CLASSES = 10
SGD = functools.partial(torch.optim.SGD, lr=1e-3, momentum=0.9, weight_decay=1e-4)
ADAM = functools.partial(torch.optim.Adam, lr=1e-2, weight_decay=1e-4)


class Step(Protocol):
    """A complete training step, and who owns the tensors that outlive it."""

    modules: list[nn.Module]
    optimizers: list[Optimizer]

    def __call__(self, batch: TrainBatch) -> Tensor: ...


class ModuleStep:
    """`training_step` of a Lightning module, run by Lightning's strategy but without the loop.

    Args:
        model: on the device where it is to run.
    """

    def __init__(self, model: NoisyLabelModule) -> None:
        trainer = Trainer(
            accelerator=model.device.type,
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        # What a fit does before its first step, as far as a single process needs it.
        model.trainer = trainer
        trainer.strategy.connect(model)
        trainer.strategy.setup_environment()
        trainer.strategy.model_to_device()
        trainer.strategy.setup_optimizers(trainer)
        trainer.fit_loop.epoch_loop.manual_optimization.on_run_start()  # steps are counted
        self.model = model
        self.modules: list[nn.Module] = [model]
        self.optimizers = trainer.optimizers

    def __call__(self, batch: TrainBatch) -> Tensor:
        return self.model.training_step(batch, 0)["loss"]


def plain(network: nn.Module) -> ModuleStep:
    """Cross-entropy on the observed labels."""
    return ModuleStep(Supervised(network, NUM_CLASSES, SGD))


def metalabelnet(network: nn.Module, backend: Backend = "jvp", **options: Any) -> ModuleStep:
    """MetaLabelNet after its warm-up, with the defaults of its configuration.

    Args:
        network: on the device where it is to run.
        backend: of the meta gradient.
        options: arguments of `MetaLabelNet`.
    """
    model = MetaLabelNet(
        network, NUM_CLASSES, SGD, ADAM, warmup_epochs=0, meta_backend=backend, **options
    )
    return ModuleStep(model.to(next(network.parameters()).device))


def random_batch(
    shape: tuple[int, int, int], size: int, device: torch.device | str = "cpu"
) -> TrainBatch:
    """Training and meta batch of B = ``size`` normalised images ``(K, H, W)`` each."""
    generator = torch.Generator().manual_seed(0)

    def batch() -> Batch:
        images = torch.randn(size, *shape, generator=generator)
        labels = torch.randint(NUM_CLASSES, (size,), generator=generator)
        tensors = (images, labels, torch.full_like(labels, -1), torch.arange(size))
        return Batch(*(tensor.to(device) for tensor in tensors))

    return {"train": batch(), "meta": batch()}
