"""Time, FLOPs and memory of every kind of step with one network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial

import torch
from torch import nn

from benchmarks.goals import step_goals
from benchmarks.measure import Cost, allocated, count
from benchmarks.published import PublishedStep
from benchmarks.report import Goal, Report, Table, seconds
from benchmarks.steps import NUM_CLASSES, Step, metalabelnet, plain, random_batch
from benchmarks.timing import Range, ratio, take_turns
from mln_lightning.networks import CNN6, PreActResNet18

SHAPE = (3, 32, 32)
NOTE = (
    "Convolutions are most of every step and run at one speed per FLOP, so times stand to each "
    "other nearly as FLOPs do: published to ours 1.6, on cnn6 with batches of 32 to 128 and on "
    "preact_resnet18 with 8 and 32 (CPU time of one thread, AMD EPYC). Arrays of 32 MiB and more "
    "(cnn6, batch 128) can add page faults, up to 40 % to a step and not evenly."
)

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
        cuda_bytes: see `allocated`; None without CUDA.
    """

    rounds: int
    seconds: Range
    time_in_plain_steps: Range
    published_time_over_this: Range
    flops: float
    flops_in_plain_steps: float
    live_bytes: int
    memory_in_plain_steps: float
    cuda_bytes: int | None
    cuda_memory_in_plain_steps: float | None

    @property
    def shown_memory(self) -> float:
        """In plain steps: on a CUDA device what its allocator says, elsewhere what was counted."""
        return self.cuda_memory_in_plain_steps or self.memory_in_plain_steps


def report(device: torch.device, budget: float = 30.0) -> Report:
    """Every kind of step with both networks, and a table of ours and the published way.

    Args:
        device: where to run.
        budget: seconds for the timed rounds of each network.
    """
    cpu = device.type == "cpu"
    cases: dict[str, tuple[Callable[..., nn.Module], int]] = {
        "cnn6": (CNN6, 128 if cpu else 512),
        "preact_resnet18": (PreActResNet18, 8 if cpu else 128),
    }
    tables: dict[str, Table] = {}
    found: dict[tuple[str, int], dict[str, StepCost]] = {}
    goals: list[Goal] = []
    for name, (network, size) in cases.items():
        costs = measure_steps(partial(network, SHAPE, NUM_CLASSES), SHAPE, size, device, budget)
        tables[name] = step_table(f"{name}, batch {size}", costs, NOTE if cpu else "")
        found[name, size] = costs
        goals += step_goals(name, costs[OURS], costs[PUBLISHED], cpu=cpu)
    numbers = {
        name: {"batch": size, "costs": {kind: asdict(cost) for kind, cost in costs.items()}}
        for (name, size), costs in found.items()
    }
    return Report({"steps": summary(found), **tables}, numbers, goals)


def step_table(title: str, costs: Mapping[str, StepCost], note: str = "") -> Table:
    header = ("step", "s (min-max)", "time", "GFLOP", "FLOPs", "MB", "memory")
    rows = [
        (
            name.replace("MetaLabelNet, ", "ours, "),
            seconds(cost.seconds),
            f"{cost.time_in_plain_steps.median:.2f}",
            f"{cost.flops / 1e9:.1f}",
            f"{cost.flops_in_plain_steps:.2f}",
            f"{(cost.cuda_bytes or cost.live_bytes) / 1e6:.0f}",
            f"{cost.shown_memory:.2f}",
        )
        for name, cost in costs.items()
    ]
    return Table(f"{title}; columns without unit are in plain steps", header, rows, note)


def summary(found: Mapping[tuple[str, int], Mapping[str, StepCost]]) -> Table:
    """Ours and the published way in plain steps."""
    rows = [
        (
            f"`{name}`, batch {size}: {shown}",
            f"{costs[kind].flops_in_plain_steps:.2f}",
            f"{costs[kind].shown_memory:.2f}",
            f"{costs[kind].time_in_plain_steps.median:.2f}",
        )
        for (name, size), costs in found.items()
        for kind, shown in (
            (OURS, "MetaLabelNet here"),
            (PUBLISHED, "the published way, transcribed"),
        )
    ]
    return Table("in plain steps", ("", "FLOPs", "memory", "time"), rows)


def measure_steps(
    network: Callable[[], nn.Module],
    shape: tuple[int, int, int],
    size: int,
    device: torch.device,
    budget: float,
) -> dict[str, StepCost]:
    """Cost of every kind of step, by its name.

    Args:
        network: makes a network for images of ``shape``.
        shape: (K, H, W).
        size: B of the training and of the meta batch.
        device: where to run.
        budget: seconds for the timed rounds.
    """
    batch, nothing = random_batch(shape, size, device), random_batch(shape, size, "meta")
    plain(network().to(device))(batch)  # work space that the device's libraries keep
    steps: dict[str, Step] = {}
    counts: dict[str, Cost] = {}
    cuda_bytes: dict[str, int] = {}
    for name, make in STEPS.items():
        counts[name] = count(make(network().to("meta")), nothing)
        held = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
        torch.manual_seed(0)
        steps[name] = make(network().to(device))
        if device.type == "cuda":
            cuda_bytes[name] = allocated(steps[name], batch, held)
        else:
            steps[name](batch)
    times = take_turns({name: partial(step, batch) for name, step in steps.items()}, budget, device)

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
            cuda_bytes=cuda_bytes.get(name),
            cuda_memory_in_plain_steps=(
                cuda_bytes[name] / cuda_bytes[PLAIN] if name in cuda_bytes else None
            ),
        )
        for name, found in counts.items()
    }
