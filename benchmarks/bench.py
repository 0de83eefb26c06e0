"""What training costs on this machine: time, FLOPs, memory, input and start-up.

    python -m benchmarks.bench [--only steps epochs …] [--output outputs/bench/bench.json]

Times are medians over rounds in which every kind of step runs once; ratios are taken within a
round, then their median. `python -m benchmarks.pages` puts the tables into the pages with them.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from rich.console import Console

from benchmarks import (
    epochs,
    folder_speed,
    input_speed,
    precision,
    resnet50,
    savings,
    scaling,
    start_up,
    step_costs,
)
from benchmarks.goals import total_goals
from benchmarks.machine import about, accelerator, sentence
from benchmarks.report import Goal, Report
from mln_lightning.job import quiet


def parts(device: torch.device) -> dict[str, Callable[[], Report]]:
    """What there is to measure, in order."""
    return {
        "steps": partial(step_costs.report, device),
        "savings": partial(savings.report, device),
        "precision": partial(precision.report, device),
        "epochs": partial(epochs.report, device),
        "scaling": partial(scaling.report, device),
        "resnet50": partial(resnet50.report, device),
        "start_up": start_up.report,
        "input": partial(input_speed.report, device),
        "folder": folder_speed.report,
    }


def measure(console: Console, chosen: Mapping[str, Callable[[], Report]]) -> dict[str, Report]:
    """Each part, shown as soon as it is there."""
    reports = {}
    for name, part in chosen.items():
        started = time.perf_counter()
        reports[name] = part()
        for table in reports[name].tables.values():
            console.print(table.rich())
        console.print(f"{name}: {time.perf_counter() - started:.0f} s\n", style="dim")
    return reports


def show(console: Console, goals: Sequence[Goal]) -> None:
    for goal in goals:
        style = {True: "green", False: "red", None: "dim"}[goal.met]
        console.print(str(goal), style=style, highlight=False)


def main() -> None:
    device = accelerator()
    known = parts(device)
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=list(known), default=list(known))
    parser.add_argument("--output", type=Path, default=Path("outputs/bench/bench.json"))
    options = parser.parse_args()

    quiet()
    started = time.perf_counter()
    console = Console(highlight=False)
    where = about(device)
    console.print(sentence(where))
    reports = measure(console, {name: known[name] for name in options.only})
    goals = [goal for report in reports.values() for goal in report.goals]
    total = time.perf_counter() - started
    if len(reports) == len(known):
        goals += total_goals(total)
    show(console, goals)
    found = {
        "about": where,
        "numbers": {name: report.numbers for name, report in reports.items()},
        "tables": {
            name: asdict(table)
            for report in reports.values()
            for name, table in report.tables.items()
        },
        "goals": [{**asdict(goal), "met": goal.met} for goal in goals],
        "seconds": total,
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(found, indent=1) + "\n")
    console.print(f"Saved in {options.output}")


if __name__ == "__main__":
    main()
