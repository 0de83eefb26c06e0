"""Images per second of whole epochs, loader included: ours and the published loop."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from benchmarks.goals import epoch_goals
from benchmarks.published_loop import PublishedLoop
from benchmarks.report import Report, Table
from benchmarks.steps import ADAM, NUM_CLASSES, SGD
from benchmarks.timing import Range, ratio, synchronize
from mln_lightning.callbacks import CompilePieces, LabelQualityCurve, Reseed
from mln_lightning.data import (
    DatasetInfo,
    ImageArrays,
    NoisyLabelDataModule,
    RandomCropFlip,
    Splits,
)
from mln_lightning.datasets import cifar10
from mln_lightning.models import MetaLabelNet, NoisyLabelModule, Supervised
from mln_lightning.networks import CNN6

SHAPE = (3, 32, 32)
PLAIN, OURS, FAST, PUBLISHED = (
    "plain training here",
    "MetaLabelNet here",
    "MetaLabelNet here, bf16-mixed, channels_last, compiled",
    "the published loop",
)


@dataclass(frozen=True)
class Size:
    """How much is trained on.

    Attributes:
        batch: B, of both batches.
        batches: of an epoch.
        untimed: first epochs of each fit.
        epochs: timed ones of each fit.
        rounds: fits of each kind.
    """

    batch: int
    batches: int
    untimed: int
    epochs: int
    rounds: int

    @classmethod
    def of(cls, device: torch.device) -> Size:
        """An epoch of CIFAR-10 on a GPU; a few batches on a CPU."""
        if device.type == "cpu":
            return cls(batch=16, batches=12, untimed=0, epochs=1, rounds=3)
        return cls(batch=128, batches=382, untimed=1, epochs=2, rounds=2)  # 1,000 meta images left

    @property
    def images(self) -> int:
        return self.batch * self.batches


class EpochTimer(Callback):
    """Seconds of every training epoch, from before its first batch is fetched."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._start = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        synchronize(pl_module.device)
        self._start = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        synchronize(pl_module.device)
        self.seconds.append(time.perf_counter() - self._start)


def fit(
    model: NoisyLabelModule,
    data: NoisyLabelDataModule,
    epochs: int,
    callbacks: Sequence[Callback] = (),
    **trainer: Any,
) -> list[float]:
    """Seconds of each epoch of a fit, with what a run does after every step.

    Args:
        model: untrained.
        data: not set up.
        epochs: of the fit.
        callbacks: further ones.
        trainer: further arguments of Lightning's Trainer.
    """
    timer = EpochTimer()
    Trainer(
        max_epochs=epochs,
        callbacks=[*callbacks, Reseed(0), LabelQualityCurve(NUM_CLASSES), timer],
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
        **trainer,
    ).fit(model, datamodule=data)
    return timer.seconds


def supervised(channels_last: bool = False) -> NoisyLabelModule:
    torch.manual_seed(0)
    return Supervised(_network(channels_last), NUM_CLASSES, SGD)


def metalabelnet(channels_last: bool = False) -> NoisyLabelModule:
    torch.manual_seed(0)
    return MetaLabelNet(_network(channels_last), NUM_CLASSES, SGD, ADAM, warmup_epochs=0)


def _network(channels_last: bool) -> CNN6:
    order = torch.channels_last if channels_last else torch.contiguous_format
    return CNN6(SHAPE, NUM_CLASSES).to(memory_format=order)


def images(number: int, num_meta: int) -> tuple[ImageArrays, ImageArrays]:
    """Training and meta images: CIFAR-10's if they are there, else random ones of that shape.

    Args:
        number: of training images.
        num_meta: of meta images, at least one for each class.
    """
    folder = os.environ.get("MLN_DATA_DIR", "data")
    if (Path(folder) / "cifar-10-batches-py").is_dir():
        known = cifar10(folder, verify=False).train.select(torch.arange(number + num_meta))
        pixels, labels = known.fetch(torch.arange(len(known))), known.labels
    else:
        draws = torch.Generator().manual_seed(0)
        total = number + num_meta
        pixels = torch.randint(0, 256, (total, *SHAPE), dtype=torch.uint8, generator=draws)
        labels = torch.arange(total) % NUM_CLASSES
    return (
        ImageArrays(pixels[:number], labels[:number]),
        ImageArrays(pixels[number:], labels[number:]),
    )


def data_module(train: ImageArrays, meta: ImageArrays, batch: int) -> NoisyLabelDataModule:
    """Our way of feeding them: whole batches, augmented where they are trained on."""
    half = (0.5,) * SHAPE[0]
    return NoisyLabelDataModule(
        lambda: Splits(train=train, test=None, meta=meta),
        DatasetInfo("images", NUM_CLASSES, SHAPE, half, half),
        batch_size=batch,
        augment=RandomCropFlip(4),
    )


def report(device: torch.device) -> Report:
    """Whole epochs of cnn6, each kind a fit of its own in every round."""
    size = Size.of(device)
    found = measure(device, size)
    speed = {name: Range.of(size.images / t for t in times) for name, times in found.items()}
    rows = [
        (
            name,
            f"{speed[name].median:,.0f} ({speed[name].min:,.0f}-{speed[name].max:,.0f})",
            f"{ratio(times, found[PLAIN]).median:.2f}",
            f"{ratio(found[PUBLISHED], times).median:.2f}",
        )
        for name, times in found.items()
    ]
    header = ("", "images/s (min-max)", "time, plain epochs", "times the published loop")
    title = f"whole epochs of {size.images:,} images, cnn6, batch {size.batch}, loader included"
    numbers = {
        "batch": size.batch,
        "images": size.images,
        "seconds_of_epoch": {name: asdict(Range.of(times)) for name, times in found.items()},
    }
    keys = {"plain": PLAIN, "ours": OURS, "fast": FAST, "published": PUBLISHED}
    medians = {key: median(found[name]) for key, name in keys.items() if name in found}
    goals = epoch_goals(medians if "fast" in medians else None)
    return Report({"epochs": Table(title, header, rows)}, numbers, goals)


def measure(device: torch.device, size: Size) -> dict[str, list[float]]:
    """Seconds of the timed epochs of each kind, their median in each round."""
    train, meta = images(size.images, 1000 if device.type == "cuda" else max(size.batch, 10))
    ways: dict[str, Callable[[], list[float]]] = {
        PLAIN: partial(_ours, supervised, train, meta, size, device),
        OURS: partial(_ours, metalabelnet, train, meta, size, device),
        PUBLISHED: partial(_published, train, meta, size, device),
    }
    if device.type == "cuda":
        ways[FAST] = partial(
            _ours,
            partial(metalabelnet, channels_last=True),
            train,
            meta,
            size,
            device,
            precision="bf16-mixed",
            callbacks=[CompilePieces()],
        )
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(size.rounds):
        for name, way in ways.items():
            found[name].append(median(way()[size.untimed :]))
    return found


def _ours(
    make: Callable[[], NoisyLabelModule],
    train: ImageArrays,
    meta: ImageArrays,
    size: Size,
    device: torch.device,
    **trainer: Any,
) -> list[float]:
    data = data_module(train, meta, size.batch)
    epochs = size.untimed + size.epochs
    return fit(make(), data, epochs, accelerator=device.type, devices=1, **trainer)


def _published(
    train: ImageArrays, meta: ImageArrays, size: Size, device: torch.device
) -> list[float]:
    torch.manual_seed(0)
    loop = PublishedLoop(_network(channels_last=False).to(device), train, meta, size.batch)
    seconds = []
    for _ in range(size.untimed + size.epochs):
        synchronize(device)
        start = time.perf_counter()
        loop.epoch()
        synchronize(device)
        seconds.append(time.perf_counter() - start)
    return seconds
