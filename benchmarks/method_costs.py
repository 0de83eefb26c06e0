"""What a run of each method costs in FLOPs, passes over the whole data included.

    python -m benchmarks.method_costs [model …] [--output experiments/methods/costs.csv]

Counted on the digits with small_cnn and batches of 128, in steps of plain training (cross_entropy
is 1): convolutions and matrix products of torch, so neither scikit-learn nor what is elementwise.
Every stage but the last (keys `*_epochs`) is cut to two epochs, the last too: the first epoch has
what a stage does once, the second stands for all others. A run is put together from them. A method
that finds next to nothing to learn from after so short a training (it selects samples by what the
network is sure of) is run in full instead.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import mean

import torch
from hydra.utils import instantiate
from lightning.pytorch import Callback, LightningModule, Trainer
from omegaconf import DictConfig
from torch.utils.flop_counter import FlopCounterMode

from mln_lightning.callbacks import Reseed
from mln_lightning.catalog import methods
from mln_lightning.config import compose
from mln_lightning.data import NoisyLabelDataModule
from mln_lightning.job import quiet
from mln_lightning.models import NoisyLabelModule

PLAIN = "cross_entropy"
OUTPUT = Path(__file__).parents[1] / "experiments" / "methods" / "costs.csv"
NOISE = ("noise=sym", "rate=0.4")
_WARMUP = "warmup_epochs"
_EACH = 2  # epochs of every stage


@dataclass(frozen=True)
class Stage:
    """A stage of a run.

    Attributes:
        name: "warmup", …; "last" for the one that lasts to the end.
        epochs: how long it is in a default run.
        first: FLOPs of its first epoch.
        other: FLOPs of each other epoch, their mean if they were all measured.
    """

    name: str
    epochs: int
    first: int
    other: float

    @property
    def flops(self) -> float:
        return self.first + (self.epochs - 1) * self.other if self.epochs else 0


class EpochFlops(Callback):
    """FLOPs of every epoch of a fit, whatever belongs to it included."""

    def __init__(self, counter: FlopCounterMode) -> None:
        self.counter = counter
        self.marks: list[int] = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.marks.append(self.counter.get_total_flops())

    on_train_end = on_train_epoch_start

    def epochs(self) -> list[int]:
        return [after - before for before, after in zip(self.marks, self.marks[1:], strict=False)]


def lengths(model: DictConfig, max_epochs: int) -> dict[str, int]:
    """Stages of a run and how long they are, in order, warm-up first.

    Args:
        model: composed configuration of a method.
        max_epochs: of the run.
    """
    keys = [str(key) for key in model if str(key).endswith("_epochs") and model[key]]
    keys.sort(key=lambda key: key != _WARMUP)
    found: dict[str, int] = {}
    left = max_epochs
    for key in keys:
        epochs = min(int(model[key]), left)
        found[key.removesuffix("_epochs")] = epochs
        left -= epochs
    return {**found, "last": left}


def measure(model: str, overrides: Sequence[str] = (), *, in_full: bool = False) -> list[Stage]:
    """The stages of a default run of a method.

    Args:
        model: as in `model=<name>`.
        overrides: of the command line.
        in_full: do the whole run.
    """
    cfg = compose([f"model={model}", *NOISE, *overrides])
    stages = lengths(cfg.model, cfg.trainer.max_epochs)
    done = stages if in_full else dict.fromkeys(stages, _EACH)
    for name in stages:
        if name != "last":
            cfg.model[f"{name}_epochs"] = done[name]
    flops = iter(epoch_flops(cfg, sum(done.values())))
    found = {name: list(islice(flops, epochs)) for name, epochs in done.items()}
    return [
        Stage(name, stages[name], first, mean(others or [first]))
        for name, (first, *others) in found.items()
        if done[name]
    ]


def epoch_flops(cfg: DictConfig, max_epochs: int) -> list[int]:
    """FLOPs of each epoch of a fit of a composed configuration."""
    torch.manual_seed(0)
    data: NoisyLabelDataModule = instantiate(cfg.dataset, _partial_=True)(
        noise=instantiate(cfg.noise)
    )
    learner: NoisyLabelModule = instantiate(cfg.model)
    with FlopCounterMode(display=False) as counter:
        flops = EpochFlops(counter)
        Trainer(
            max_epochs=max_epochs,
            accelerator="cpu",
            logger=False,
            callbacks=[Reseed(0), flops],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            limit_val_batches=0,
        ).fit(learner, datamodule=data)
    return flops.epochs()


def idle(stages: Sequence[Stage], plain: Sequence[Stage]) -> bool:
    """Whether some stage had hardly anything to learn from: less than a forward of its images."""
    return any(stage.other < plain[0].other / 3 for stage in stages)


def in_plain_steps(stages: Sequence[Stage], plain: Sequence[Stage]) -> float:
    """FLOPs of a whole run over those of plain training for as many epochs."""
    return sum(stage.flops for stage in stages) / sum(stage.flops for stage in plain)


def row(model: str, stages: Sequence[Stage], plain: Sequence[Stage]) -> str:
    """A line of the table: the whole run, then an epoch of each stage."""
    each = " → ".join(
        f"{stage.name} {stage.other / plain[0].other:.2f}" for stage in stages if stage.epochs
    )
    return f"| `{model}` | {in_plain_steps(stages, plain):.2f} | {each} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("models", nargs="*", help="all of conf/model if none is named")
    parser.add_argument("--output", type=Path, help="a CSV file; default for all methods: in git")
    arguments = parser.parse_args()
    quiet()
    torch.set_num_threads(1)  # on images of 8 x 8 more threads wait for each other
    names = arguments.models or sorted(method.name for method in methods())
    output = arguments.output or (None if arguments.models else OUTPUT)

    plain = measure(PLAIN)
    print("| model | FLOPs of a run, plain steps | of an epoch in each stage |")
    print("| --- | ---: | --- |")
    costs: dict[str, float] = {}
    for name in names:
        stages = measure(name)
        if idle(stages, plain):
            stages = measure(name, in_full=True)
        costs[name] = in_plain_steps(stages, plain)
        print(row(name, stages, plain), flush=True)
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        with output.open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["model", "flops_plain_steps"])
            writer.writerows([name, f"{cost:.3f}"] for name, cost in costs.items())


if __name__ == "__main__":
    main()
