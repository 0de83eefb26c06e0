"""The runs that a sweep asks for."""

from __future__ import annotations

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig


def ranges_of(base: DictConfig) -> list[Override]:
    """What a sweep ranges over, and what it keeps fixed: the sweeper's lines, then the user's."""
    lines = [f"{key}={value}" for key, value in (base.hydra.sweeper.params or {}).items()]
    return OverridesParser.create().parse_overrides([*lines, *base.hydra.overrides.task])


def combinations_of(ranges: list[Override]) -> list[list[str]]:
    """The overrides of each run of a sweep, in the basic sweeper's order."""
    (combinations,) = BasicSweeper.split_arguments(ranges, max_batch_size=None)
    return [list(combination) for combination in combinations]


def new_values_first(combinations: list[list[str]]) -> list[int]:
    """Positions, those first that show some value for the first time.

    Composing takes a tenth of a second each; so a bad value is found before the whole grid is done.
    """
    seen: set[str] = set()
    fresh = []
    for number, combination in enumerate(combinations):
        if not seen.issuperset(combination):
            seen.update(combination)
            fresh.append(number)
    return [*fresh, *sorted(set(range(len(combinations))) - set(fresh))]
