"""What the numbers should be, and why one is not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.step_costs import OURS, PUBLISHED, StepCost
from benchmarks.timing import Range


@dataclass(frozen=True)
class Goal:
    """A number and what it should be.

    Attributes:
        why: what is known of the reason, should it be missed; empty if nothing.
    """

    what: str
    value: float
    limit: float
    at_most: bool
    why: str = ""

    @property
    def met(self) -> bool:
        return self.value <= self.limit if self.at_most else self.value >= self.limit

    def __str__(self) -> str:
        sign, verdict = "≤" if self.at_most else "≥", "met" if self.met else "MISSED"
        reason = "" if self.met or not self.why else f"\n  why: {self.why}"
        return f"{self.what}: {self.value:.2f} ({sign} {self.limit:g}) {verdict}{reason}"


def step_goals(network: str, costs: Mapping[str, StepCost], *, cpu: bool) -> list[Goal]:
    """Goals of one network's table; those on time hold on a CPU only."""
    ours, published = costs[OURS], costs[PUBLISHED]
    goals = [Goal(f"{network}: FLOPs in plain steps", ours.flops_in_plain_steps, 3.75, True)]
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


def other_goals(refusal: Range | None, total_seconds: float) -> list[Goal]:
    """Goals of the start-up and of the benchmark itself."""
    goals = [Goal("seconds of the whole benchmark", total_seconds, 300, True, "a busy machine?")]
    if refusal is not None:
        goals.insert(0, Goal("seconds until a bad option is refused", refusal.median, 3, True))
    return goals
