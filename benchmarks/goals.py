"""What the numbers should be, and why one is not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from benchmarks.report import Goal
from benchmarks.timing import Range

if TYPE_CHECKING:
    from benchmarks.step_costs import StepCost


def step_goals(network: str, ours: StepCost, published: StepCost, *, cpu: bool) -> list[Goal]:
    """Goals of one network's steps; those on time hold on a CPU only."""
    goals = [Goal(f"{network}: FLOPs in plain steps", ours.flops_in_plain_steps, 3.70, True)]
    if network == "cnn6":
        memory = ours.memory_in_plain_steps
        goals.append(Goal(f"{network}: live memory in plain steps", memory, 2.1, True))
    if cpu:
        flops = ours.flops_in_plain_steps
        fewer = published.flops / ours.flops
        goals += [
            Goal(
                f"{network}: time in plain steps",
                ours.time_in_plain_steps.median,
                4.0,
                True,
                f"FLOPs say {flops:.2f}; the rest is page faults, or a busy machine",
            ),
            Goal(
                f"{network}: times faster than the published way",
                ours.published_time_over_this.median,
                1.9,
                False,
                f"FLOPs allow {fewer:.2f}; convolutions are as fast there as in our step",
            ),
        ]
    return goals


def folder_goals(files: Range, cache: Range) -> list[Goal]:
    """Goals of reading a folder, in times as fast as ImageFolder without workers."""
    why = "a busy machine?"
    return [
        Goal("folder of JPEGs: times ImageFolder", files.median, 1.2, False, why),
        Goal("folder of JPEGs, cached: times ImageFolder", cache.median, 3.0, False, why),
    ]


def start_up_goals(refusal: Range | None) -> list[Goal]:
    """Goals of the start-up, unless it failed."""
    if refusal is None:
        return []
    return [Goal("seconds until a bad option is refused", refusal.median, 3, True)]


def total_goals(seconds: float) -> list[Goal]:
    """Goals of the benchmark itself."""
    return [Goal("seconds of the whole benchmark", seconds, 360, True, "a busy machine?")]


def photograph_goals(allocated: int | None) -> list[Goal]:
    """Goals of ResNet-50 on 224 x 224; bytes of our step on a GPU, None where there is none."""
    value = None if allocated is None else allocated / 1e9
    return [Goal("resnet50, 224 x 224, batch 32: GB on the GPU", value, 12, True)]


def epoch_goals(seconds: Mapping[str, float] | None) -> list[Goal]:
    """Goals of whole epochs of CIFAR-10 with cnn6 on a GPU.

    Args:
        seconds: of an epoch: ``plain``, ``ours``, ``fast`` (ours in bf16) and ``published``; None
            where there is no GPU.
    """
    twice = tenfold = minutes = None
    if seconds is not None:
        twice = seconds["published"] / seconds["ours"]
        tenfold = seconds["published"] / seconds["fast"]
        # The published schedule has 44 epochs of warm-up and 76 with the meta gradient.
        minutes = (44 * seconds["plain"] + 76 * seconds["fast"]) / 60
    return [
        Goal("whole epochs: times the published loop, float32", twice, 2, False),
        Goal("whole epochs: times the published loop, bf16", tenfold, 10, False),
        Goal("minutes of the published 120 epochs, from those measured", minutes, 6, True),
    ]
