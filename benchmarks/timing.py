"""Times of things that take turns, so that a busy moment of the machine falls on all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch

LEAST_ROUNDS, MOST_ROUNDS = 3, 20


@dataclass(frozen=True)
class Range:
    """Median, least and greatest of several measurements."""

    median: float
    min: float
    max: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Range:
        found = list(values)
        return cls(statistics.median(found), min(found), max(found))


def ratio(numerators: list[float], denominators: list[float]) -> Range:
    """Range of the quotients within each round."""
    return Range.of(a / b for a, b in zip(numerators, denominators, strict=True))


def take_turns(
    actions: Mapping[str, Callable[[], object]], seconds: float, device: torch.device
) -> dict[str, list[float]]:
    """Seconds of each action in each round, rounds going on for about ``seconds``."""
    times: dict[str, list[float]] = {name: [] for name in actions}
    start = time.perf_counter()
    for rounds in range(MOST_ROUNDS):
        spent = time.perf_counter() - start
        if rounds >= LEAST_ROUNDS and spent + spent / rounds > seconds:
            break
        for name, action in actions.items():
            synchronize(device)
            begin = time.perf_counter()
            action()
            synchronize(device)
            times[name].append(time.perf_counter() - begin)
    return times


def synchronize(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize()
