"""What a step of each kind costs on this machine: time, FLOPs, memory; start-up and input speed.

    python -m benchmarks.bench [--seconds 40] [--output outputs/bench/bench.json]

Times are medians over rounds in which every kind of step runs once; ratios are taken within a
round, then their median. Columns without unit are in plain steps.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.folder_speed import CACHE, FILES, FOLDER, measure_folder
from benchmarks.goals import Goal, folder_goals, other_goals, step_goals
from benchmarks.input_speed import OURS as OUR_INPUT
from benchmarks.input_speed import PER_SAMPLE, RAND_AUGMENT, STRONG, measure_input
from benchmarks.start_up import BAD_OPTION, measure_start_up
from benchmarks.step_costs import OURS, PLAIN, StepCost, measure_steps
from benchmarks.timing import Range, ratio
from mln_lightning.job import quiet
from mln_lightning.networks import CNN6, PreActResNet18

SHAPE = (3, 32, 32)
NOTE = (
    "Convolutions are most of every step and run at one speed per FLOP, so times stand to each "
    "other nearly as FLOPs do: published to ours 1.6, on cnn6 with batches of 32 to 128 and on "
    "preact_resnet18 with 8 and 32 (CPU time of one thread, AMD EPYC). Arrays of 32 MiB and more "
    "(cnn6, batch 128) can add page faults, up to 40 % to a step and not evenly."
)


def accelerator() -> torch.device:
    # Without a driver a CUDA build still names its accelerator.
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return found or torch.device("cpu")


def machine(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return platform.processor() or platform.machine() if device.type == "cpu" else str(device)


def step_table(title: str, costs: Mapping[str, StepCost]) -> Table:
    """On a CUDA device the memory is what its allocator says, elsewhere what was counted."""
    table = Table(title=title, title_justify="left")
    table.add_column("step")
    for column in ("s (min-max)", "time", "GFLOP", "FLOPs", "MB", "memory"):
        table.add_column(column, justify="right")
    for name, cost in costs.items():
        seconds = cost.seconds
        table.add_row(
            name.replace("MetaLabelNet, ", "ours, "),
            f"{seconds.median:.3g} ({seconds.min:.3g}-{seconds.max:.3g})",
            f"{cost.time_in_plain_steps.median:.2f}",
            f"{cost.flops / 1e9:.1f}",
            f"{cost.flops_in_plain_steps:.2f}",
            f"{(cost.cuda_bytes or cost.live_bytes) / 1e6:.0f}",
            f"{cost.cuda_memory_in_plain_steps or cost.memory_in_plain_steps:.2f}",
        )
    return table


def other_table(rows: Mapping[str, tuple[Range | None, str]]) -> Table:
    """Start-up and input, each with its unit."""
    table = Table("start-up and input", "unit")
    for column in ("median", "min", "max"):
        table.add_column(column, justify="right")
    for name, (found, unit) in rows.items():
        if found is None:
            table.add_row(name, unit, "failed")
            continue
        digits = 0 if found.median > 100 else 2
        values = (found.median, found.min, found.max)
        table.add_row(name, unit, *(f"{value:,.{digits}f}" for value in values))
    return table


def folder_table(seconds: Mapping[tuple[str, int], list[float]]) -> Table:
    """Photographs per second, and how many times as fast as ImageFolder with as many workers."""
    table = Table("folder of 500 x 375 JPEGs, to 224 x 224", "workers")
    for column in ("images/s", "times ImageFolder (min-max)"):
        table.add_column(column, justify="right")
    for (way, workers), found in seconds.items():
        times = ratio(seconds[FOLDER, workers], found)
        table.add_row(
            way,
            str(workers),
            f"{1 / statistics.median(found):,.0f}",
            f"{times.median:.2f} ({times.min:.2f}-{times.max:.2f})",
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=40, help="timed rounds of each network")
    parser.add_argument("--output", type=Path, default=Path("outputs/bench/bench.json"))
    options = parser.parse_args()

    quiet()
    started = time.perf_counter()
    console, device = Console(highlight=False), accelerator()
    cpu = device.type == "cpu"
    about = {
        "device": str(device),
        "machine": machine(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    console.print(
        f"{about['machine']}, {about['threads']} threads, torch {about['torch']}; columns "
        "without unit are in plain steps"
    )
    cases = {
        "cnn6": (CNN6, 128 if cpu else 512),
        "preact_resnet18": (PreActResNet18, 8 if cpu else 128),
    }
    steps: dict[str, dict[str, StepCost]] = {}
    goals: list[Goal] = []
    for name, (network, size) in cases.items():
        steps[name] = measure_steps(
            partial(network, SHAPE, 10), SHAPE, size, device, options.seconds
        )
        console.print(step_table(f"{name}, batch {size}", steps[name]))
        goals += step_goals(name, steps[name], cpu=cpu)
    if cpu:
        console.print(NOTE)

    start_up = measure_start_up()
    size = cases["cnn6"][1]
    seconds = measure_input(SHAPE, size, device)
    speed = {name: Range.of(size / t for t in found) for name, found in seconds.items()}
    speed_up = ratio(seconds[PER_SAMPLE], seconds[OUR_INPUT])
    strong_speed_up = ratio(seconds[RAND_AUGMENT], seconds[STRONG])
    share = {
        way: {
            kind: statistics.median(seconds[way]) / steps["cnn6"][kind].seconds.median
            for kind in (PLAIN, OURS)
        }
        for way in (OUR_INPUT, STRONG)
    }
    console.print(
        other_table(
            {name: (found, "s") for name, found in start_up.items()}
            | {name: (found, "images/s") for name, found in speed.items()}
            | {
                "ours over PIL": (speed_up, "times"),
                "strong over RandAugment": (strong_speed_up, "times"),
            }
        )
    )
    for way, of in share.items():
        console.print(
            f"Input in {way}, on one thread, takes {of[PLAIN]:.2%} of a plain step's time and "
            f"{of[OURS]:.2%} of MetaLabelNet's (cnn6, batch {size})."
        )

    folder = measure_folder()
    console.print(folder_table(folder))
    folder_speed_up = {way: ratio(folder[FOLDER, 0], folder[way, 0]) for way in (FILES, CACHE)}

    goals += folder_goals(folder_speed_up[FILES], folder_speed_up[CACHE])
    goals += other_goals(start_up[BAD_OPTION], time.perf_counter() - started)
    for goal in goals:
        console.print(str(goal), style="green" if goal.met else "red")
    report = {
        **about,
        "steps": {
            name: {
                "batch": cases[name][1],
                "costs": {kind: asdict(cost) for kind, cost in costs.items()},
            }
            for name, costs in steps.items()
        },
        "start_up_seconds": {k: found and asdict(found) for k, found in start_up.items()},
        "input_images_per_second": {k: asdict(found) for k, found in speed.items()},
        "input_speed_up": asdict(speed_up),
        "strong_input_speed_up": asdict(strong_speed_up),
        "input_share_of_step": share,
        "folder_images_per_second": {
            f"{way}, {workers} workers": asdict(Range.of(1 / t for t in found))
            for (way, workers), found in folder.items()
        },
        "folder_speed_up": {way: asdict(found) for way, found in folder_speed_up.items()},
        "goals": [{**asdict(goal), "met": goal.met} for goal in goals],
        "seconds": time.perf_counter() - started,
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=1) + "\n")
    console.print(f"Saved in {options.output}")


if __name__ == "__main__":
    main()
