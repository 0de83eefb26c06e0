"""The library's own training steps, taken one at a time outside a fit."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Protocol
from unittest.mock import patch

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
        model: its network lies where it is to run; on the meta device everything is counted and
            nothing computed.
        precision: as Lightning names it.
    """

    def __init__(self, model: NoisyLabelModule, precision: str = "32-true") -> None:
        device = next(model.network.parameters()).device
        trainer = Trainer(
            accelerator="cpu" if device.type == "meta" else device.type,
            devices=1,
            precision=precision,  # type: ignore[arg-type]
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        # What a fit does before its first step, as far as a single process needs it.
        model.to(device)
        model.trainer = trainer
        trainer.strategy.connect(model)
        trainer.strategy.setup_environment()
        trainer.strategy.setup_optimizers(trainer)
        trainer.fit_loop.epoch_loop.manual_optimization.on_run_start()  # steps are counted
        model._some_unlabelled = False  # as the data module of a fit would tell
        self.model = model
        self.modules: list[nn.Module] = [model]
        self.optimizers = trainer.optimizers

    def __call__(self, batch: TrainBatch) -> Tensor:
        counting = batch["train"].images.device.type == "meta"
        with autocast_on_meta() if counting else nullcontext():
            output = self.model.trainer.strategy.training_step(batch, 0)
        loss: Tensor = output["loss"]
        return loss


@contextmanager
def autocast_on_meta() -> Iterator[None]:
    """Let autocast be asked of the meta device, which torch refuses: it does nothing there."""

    def on_cpu(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(device_type: str, *args: Any, **options: Any) -> Any:
            return function("cpu" if device_type == "meta" else device_type, *args, **options)

        return call

    with (
        patch.object(torch, "autocast", on_cpu(torch.autocast)),
        patch.object(torch, "is_autocast_enabled", on_cpu(torch.is_autocast_enabled)),
    ):
        yield


def plain(network: nn.Module, precision: str = "32-true") -> ModuleStep:
    """Cross-entropy on the observed labels."""
    return ModuleStep(Supervised(network, NUM_CLASSES, SGD), precision)


def metalabelnet(
    network: nn.Module, backend: Backend = "jvp", precision: str = "32-true", **options: Any
) -> ModuleStep:
    """MetaLabelNet after its warm-up, with the defaults of its configuration.

    Args:
        network: see `ModuleStep`.
        backend: of the meta gradient.
        precision: see `ModuleStep`.
        options: arguments of `MetaLabelNet`.
    """
    model = MetaLabelNet(
        network, NUM_CLASSES, SGD, ADAM, warmup_epochs=0, meta_backend=backend, **options
    )
    return ModuleStep(model, precision)


def random_batch(
    shape: tuple[int, int, int],
    size: int,
    device: torch.device | str = "cpu",
    meta_size: int | None = None,
) -> TrainBatch:
    """Training and meta batch of normalised images ``(B, K, H, W)``.

    Args:
        shape: (K, H, W).
        size: B of the training batch.
        device: where the batch lies.
        meta_size: of the meta batch; None = B.
    """
    generator = torch.Generator().manual_seed(0)

    def batch(size: int) -> Batch:
        images = torch.randn(size, *shape, generator=generator)
        labels = torch.randint(NUM_CLASSES, (size,), generator=generator)
        tensors = (images, labels, torch.full_like(labels, -1), torch.arange(size))
        return Batch(*(tensor.to(device) for tensor in tensors))

    return {"train": batch(size), "meta": batch(meta_size or size)}
