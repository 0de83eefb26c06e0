"""What each way of a cheaper meta gradient saves, beside the least that its arithmetic allows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from functools import partial
from typing import Any

import torch

from benchmarks.measure import Cost, count
from benchmarks.report import Report, Table
from benchmarks.steps import NUM_CLASSES, Step, metalabelnet, plain, random_batch
from benchmarks.timing import Range, ratio, take_turns
from mln_lightning.batch import TrainBatch
from mln_lightning.networks import CNN6

SHAPE, COUNTED = (3, 32, 32), 128
STUDENT_FIRST = {  # the options of model=emlc
    "order": "student_first",
    "virtual_lr": "current",
    "meta_weight": 0.0,
    "regenerate_labels": False,
}
PLAIN = "plain training"


@dataclass(frozen=True)
class Way:
    """A way to take MetaLabelNet's steps.

    Attributes:
        share: ρ, images of the meta batch for each of the training batch.
        every: k, a meta step in every k-th iteration.
        options: further ones of `MetaLabelNet`.
    """

    share: Fraction = Fraction(1)
    every: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def floor(self) -> float:
        """Least FLOPs of an iteration in plain steps, the encoder apart."""
        first = 5 if self.options.get("order") == "student_first" else 7
        return float((first + 3 * self.share + 3 * (self.every - 1)) / (3 * self.every))


LEAN = {"lean_memory": True}
WAYS = {
    "defaults": Way(),
    "ρ = 1/2": Way(share=Fraction(1, 2)),
    "ρ = 1/4": Way(share=Fraction(1, 4)),
    "ρ = 1/8": Way(share=Fraction(1, 8)),
    "k = 2": Way(every=2),
    "k = 5": Way(every=5),
    "k = 10": Way(every=10),
    "ρ = 1/4, k = 5": Way(share=Fraction(1, 4), every=5),
    "student first": Way(options=STUDENT_FIRST),
    "student first, k = 5": Way(every=5, options=STUDENT_FIRST),
    "lean memory": Way(options=LEAN),
    "student first, lean memory": Way(options={**STUDENT_FIRST, **LEAN}),
    "encoder folded": Way(options={"encoder_mode": "folded"}),
    "encoder in bfloat16": Way(options={"encoder_mode": "bf16"}),
}


def report(device: torch.device, budget: float = 20.0) -> Report:
    """Every way with cnn6: counted for the published batch, timed for one that the device likes.

    Args:
        device: where to run.
        budget: seconds for the timed rounds.
    """
    size = 16 if device.type == "cpu" else COUNTED  # ρ = 1/8 leaves two, for batch-norm
    costs, times = counts(COUNTED), measure(device, size, budget)
    base = costs[PLAIN]
    found = {name: ratio(times[name], times[PLAIN]) for name in WAYS}
    rows = [
        (
            name,
            f"{way.floor:.2f}",
            f"{costs[name].flops / base.flops:.2f}",
            f"{found[name].median:.2f}",
            f"{costs[name].live_bytes / base.live_bytes:.2f}",
        )
        for name, way in WAYS.items()
    ]
    table = Table(
        f"MetaLabelNet in plain steps, cnn6, batch {COUNTED} (time: {size})",
        ("", "floor, without the encoder", "FLOPs", "time", "memory"),
        rows,
        "The encoder's forward is 0.33 of every iteration; ρ: images of the meta batch for each of "
        "the training batch, k: a meta step in every k-th iteration.",
    )
    numbers = {
        name: {
            "floor": WAYS[name].floor if name in WAYS else 1.0,
            **asdict(cost),
            "seconds": asdict(Range.of(times[name])),
            "time_in_plain_steps": asdict(ratio(times[name], times[PLAIN])),
        }
        for name, cost in costs.items()
    }
    return Report({"savings": table}, {"counted_batch": COUNTED, "batch": size, "ways": numbers})


def counts(size: int) -> dict[str, Cost]:
    """Cost of a mean iteration of each way, and of plain training."""
    return {
        name: count(step, batch, steps=every)
        for name, step, batch, every in _ways(torch.device("meta"), size)
    }


def measure(device: torch.device, size: int, budget: float) -> dict[str, list[float]]:
    """Seconds of a mean iteration of each way, and of plain training."""
    ways = _ways(device, size)
    actions = {name: partial(_cycle, step, batch, every) for name, step, batch, every in ways}
    for action in actions.values():
        action()
    times = take_turns(actions, budget, device)
    return {name: [one / every for one in times[name]] for name, _, _, every in ways}


def _ways(device: torch.device, size: int) -> list[tuple[str, Step, TrainBatch, int]]:
    """Name, step, batch, and after how many steps the kinds of steps repeat."""
    ways: list[tuple[str, Step, TrainBatch, int]] = [
        (PLAIN, plain(_network(device)), random_batch(SHAPE, size, device), 1)
    ]
    for name, way in WAYS.items():
        step = metalabelnet(_network(device), meta_every=way.every, **way.options)
        batch = random_batch(SHAPE, size, device, max(1, int(size * way.share)))
        ways.append((name, step, batch, way.every))
    return ways


def _network(device: torch.device) -> CNN6:
    torch.manual_seed(0)
    return CNN6(SHAPE, NUM_CLASSES).to(device)


def _cycle(step: Step, batch: TrainBatch, every: int) -> None:
    for _ in range(every):
        step(batch)
