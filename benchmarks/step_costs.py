"""Time, FLOPs and memory of every kind of step with one network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from benchmarks.measure import Cost, count
from benchmarks.published import PublishedStep
from benchmarks.steps import Step, metalabelnet, plain, random_batch
from benchmarks.timing import Range, ratio, take_turns

PLAIN, OURS, PUBLISHED = "plain training", "MetaLabelNet, jvp", "published way"
STEPS: dict[str, Callable[[nn.Module], Step]] = {
    PLAIN: plain,
    OURS: metalabelnet,
    "MetaLabelNet, autograd": partial(metalabelnet, backend="autograd"),
    "MetaLabelNet, differences": partial(metalabelnet, backend="finite_difference"),
    PUBLISHED: PublishedStep,
}


@dataclass(frozen=True)
class StepCost:
    """What one kind of step costs; ratios of times are taken within rounds.

    Attributes:
        cuda_bytes: see `Cost`.
    """

    rounds: int
    seconds: Range
    time_in_plain_steps: Range
    published_time_over_this: Range
    flops: int
    flops_in_plain_steps: float
    live_bytes: int
    memory_in_plain_steps: float
    cuda_bytes: int | None
    cuda_memory_in_plain_steps: float | None


def measure_steps(
    network: Callable[[], nn.Module],
    shape: tuple[int, int, int],
    size: int,
    device: torch.device,
    seconds: float,
) -> dict[str, StepCost]:
    """Cost of every kind of step, by its name.

    Args:
        network: makes a network for images of ``shape``.
        shape: (K, H, W).
        size: B of the training and of the meta batch.
        device: where to run.
        seconds: for the timed rounds.
    """
    batch = random_batch(shape, size, device)
    plain(network().to(device))(batch)  # work space that the device's libraries keep
    steps: dict[str, Step] = {}
    counts: dict[str, Cost] = {}
    for name, make in STEPS.items():
        held = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
        torch.manual_seed(0)
        steps[name] = make(network().to(device))
        counts[name] = count(steps[name], batch, held)
    times = take_turns(
        {name: partial(step, batch) for name, step in steps.items()}, seconds, device
    )

    base = counts[PLAIN]
    return {
        name: StepCost(
            rounds=len(times[name]),
            seconds=Range.of(times[name]),
            time_in_plain_steps=ratio(times[name], times[PLAIN]),
            published_time_over_this=ratio(times[PUBLISHED], times[name]),
            flops=found.flops,
            flops_in_plain_steps=found.flops / base.flops,
            live_bytes=found.live_bytes,
            memory_in_plain_steps=found.live_bytes / base.live_bytes,
            cuda_bytes=found.cuda_bytes,
            cuda_memory_in_plain_steps=_quotient(found.cuda_bytes, base.cuda_bytes),
        )
        for name, found in counts.items()
    }


def _quotient(part: int | None, whole: int | None) -> float | None:
    return None if part is None or whole is None else part / whole
