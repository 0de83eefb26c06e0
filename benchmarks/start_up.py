"""How long the command and its heavy imports take to start, each in a fresh process."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import asdict
from typing import NamedTuple

from benchmarks.goals import start_up_goals
from benchmarks.report import Report, Table, spread
from benchmarks.timing import Range


class Command(NamedTuple):
    """Arguments for Python, and the exit code that they should lead to."""

    arguments: tuple[str, ...]
    code: int = 0


BAD_OPTION = "mln_lightning.run, bad option"
COMMANDS = {
    "python -c pass": Command(("-c", "pass")),
    "import mln_lightning": Command(("-c", "import mln_lightning")),
    "import torch": Command(("-c", "import torch")),
    "import lightning": Command(("-c", "import lightning")),
    "mln_lightning.run --help": Command(("-m", "mln_lightning.run", "--help")),
    BAD_OPTION: Command(("-m", "mln_lightning.run", "nosie=asym"), code=2),
}


def report() -> Report:
    """The commands beside each other."""
    found = measure_start_up()
    rows = [
        (name, "failed" if range_ is None else spread(range_)) for name, range_ in found.items()
    ]
    return Report(
        {"start_up": Table("start-up", ("command", "s (min-max)"), rows)},
        {name: range_ and asdict(range_) for name, range_ in found.items()},
        start_up_goals(found[BAD_OPTION]),
    )


def measure_start_up(repetitions: int = 3) -> dict[str, Range | None]:
    """Seconds of each command; None where one ends with another code than it should.

    The first repetition may read from a cold disk.
    """
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    failed = set()
    for _ in range(repetitions):
        for name, command in COMMANDS.items():
            begin = time.perf_counter()
            done = subprocess.run(
                [sys.executable, *command.arguments], capture_output=True, check=False
            )
            times[name].append(time.perf_counter() - begin)
            if done.returncode != command.code:
                failed.add(name)
    return {name: None if name in failed else Range.of(found) for name, found in times.items()}
