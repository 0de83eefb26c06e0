"""What a step of each kind costs on this machine: time, FLOPs, memory; start-up and input speed.

    python -m benchmarks.bench [--seconds 50] [--output outputs/bench/bench.json]

Times are medians over rounds in which every kind of step runs once, so that a busy moment of the
machine falls on all of them. Ratios are taken within a round, then their median.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from benchmarks.measure import Step, count
from benchmarks.steps import Data, MetaLabelNetStep, PlainStep, PublishedStep
from mln_lightning.networks import CNN6, PreActResNet18

SHAPE = (3, 32, 32)
STEPS: dict[str, Callable[[nn.Module], Step]] = {
    "plain training": PlainStep,
    "MetaLabelNet, jvp": MetaLabelNetStep,
    "MetaLabelNet, autograd": lambda network: MetaLabelNetStep(network, "autograd"),
    "MetaLabelNet, differences": lambda network: MetaLabelNetStep(network, "finite_difference"),
    "published way": PublishedStep,
}
PLAIN, OURS, PUBLISHED = "plain training", "MetaLabelNet, jvp", "published way"


@dataclass(frozen=True)
class Range:
    """Median, least and greatest of several measurements."""

    median: float
    min: float
    max: float

    @classmethod
    def of(cls, values: list[float]) -> Range:
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True)
class Goal:
    """A number and what it should be."""

    what: str
    value: float
    limit: float
    at_most: bool

    @property
    def met(self) -> bool:
        return self.value <= self.limit if self.at_most else self.value >= self.limit

    def __str__(self) -> str:
        sign, verdict = "≤" if self.at_most else "≥", "met" if self.met else "MISSED"
        return f"{self.what}: {self.value:.2f} ({sign} {self.limit}) {verdict}"


def accelerator() -> torch.device:
    # Without a driver a CUDA build still names its accelerator.
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return found or torch.device("cpu")


def machine(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return platform.processor() or platform.machine() if device.type == "cpu" else str(device)


def synchronize(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize()


def measure_steps(
    network: Callable[..., nn.Module], size: int, device: torch.device, seconds: float
) -> dict[str, dict[str, Any]]:
    """Cost of every kind of step with one network and batch size.

    Args:
        network: class of the network.
        size: B of the training and of the meta batch.
        device: where to run.
        seconds: for the timed rounds, of which there are at least 3 and at most 20.
    """
    data = Data(SHAPE, size, device=device)
    steps: dict[str, Step] = {}
    for name, make in STEPS.items():
        torch.manual_seed(0)
        steps[name] = make(network(SHAPE, 10).to(device))
    counts = {name: count(step, data) for name, step in steps.items()}
    flops = {name: found for name, (found, _) in counts.items()}
    memory = {name: found for name, (_, found) in counts.items()}

    times: dict[str, list[float]] = {name: [] for name in steps}
    start = time.perf_counter()
    for rounds in range(20):
        spent = time.perf_counter() - start
        if rounds >= 3 and spent + spent / rounds > seconds:
            break
        for name, step in steps.items():
            synchronize(device)
            begin = time.perf_counter()
            step(data)
            synchronize(device)
            times[name].append(time.perf_counter() - begin)

    def relative(name: str, to: str) -> Range:
        return Range.of([a / b for a, b in zip(times[name], times[to], strict=True)])

    return {
        name: {
            "seconds": asdict(Range.of(times[name])),
            "rounds": len(times[name]),
            "time_in_plain_steps": asdict(relative(name, PLAIN)),
            "published_time_over_this": asdict(relative(PUBLISHED, name)),
            "flops": flops[name],
            "flops_in_plain_steps": flops[name] / flops[PLAIN],
            "peak_bytes": memory[name],
            "memory_in_plain_steps": memory[name] / memory[PLAIN],
        }
        for name in steps
    }


def step_goals(name: str, costs: dict[str, dict[str, Any]], device: torch.device) -> list[Goal]:
    ours = costs[OURS]
    goals = [Goal(f"{name}: FLOPs in plain steps", ours["flops_in_plain_steps"], 3.75, True)]
    if name == "cnn6":
        goals.append(
            Goal(f"{name}: live memory in plain steps", ours["memory_in_plain_steps"], 2.1, True)
        )
    if device.type == "cpu":
        goals += [
            Goal(f"{name}: time in plain steps", ours["time_in_plain_steps"]["median"], 4.0, True),
            Goal(
                f"{name}: times faster than the published way",
                ours["published_time_over_this"]["median"],
                1.9,
                False,
            ),
        ]
    return goals


def measure_start_up(repetitions: int = 3) -> dict[str, dict[str, float] | None]:
    """Seconds of the command's start and of its heavy imports, each in a fresh process.

    None where the process fails (the first run of all also reads from a cold disk).
    """
    commands = {
        "python -c pass": ["-c", "pass"],
        "import mln_lightning": ["-c", "import mln_lightning"],
        "import torch": ["-c", "import torch"],
        "import lightning": ["-c", "import lightning"],
        "mln_lightning.run --help": ["-m", "mln_lightning.run", "--help"],
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(repetitions):
        for name, arguments in commands.items():
            begin = time.perf_counter()
            done = subprocess.run([sys.executable, *arguments], capture_output=True, check=False)
            if done.returncode == 0:
                times[name].append(time.perf_counter() - begin)
    return {name: asdict(Range.of(values)) if values else None for name, values in times.items()}


def measure_input(device: torch.device, seconds: float = 3.0) -> dict[str, float] | None:
    """Images per second of batched crop, flip and normalisation, CIFAR-sized.

    None where the data part of the package is missing.
    """
    if importlib.util.find_spec("mln_lightning.data") is None:
        return None
    from mln_lightning.data.augment import Normalize, RandomCropFlip

    size = 128
    draw = torch.Generator().manual_seed(0)
    pool = torch.randint(0, 256, (10_000, *SHAPE), dtype=torch.uint8, generator=draw)
    augment, normalize = RandomCropFlip(4), Normalize((0.5,) * 3, (0.5,) * 3)
    speeds: list[float] = []
    start = time.perf_counter()
    while len(speeds) < 5 or (time.perf_counter() - start < seconds and len(speeds) < 200):
        index = torch.randint(len(pool), (size,), generator=draw)
        begin = time.perf_counter()
        images = pool[index].to(device)
        normalize(augment(images, index.to(device), seed=0, epoch=0))
        synchronize(device)
        speeds.append(size / (time.perf_counter() - begin))
    return asdict(Range.of(speeds))


def table_of(title: str, costs: dict[str, dict[str, Any]]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("step")
    for column in ("ms (min-max)", "time", "GFLOP", "FLOPs", "MB", "memory"):
        table.add_column(column, justify="right")
    for name, cost in costs.items():
        ms = {key: 1000 * value for key, value in cost["seconds"].items()}
        table.add_row(
            name.replace("MetaLabelNet, ", "ours, "),
            f"{ms['median']:.0f} ({ms['min']:.0f}-{ms['max']:.0f})",
            f"{cost['time_in_plain_steps']['median']:.2f}",
            f"{cost['flops'] / 1e9:.1f}",
            f"{cost['flops_in_plain_steps']:.2f}",
            f"{cost['peak_bytes'] / 1e6:.0f}",
            f"{cost['memory_in_plain_steps']:.2f}",
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=50, help="timed rounds of each network")
    parser.add_argument("--output", type=Path, default=Path("outputs/bench/bench.json"))
    options = parser.parse_args()

    console, device = Console(), accelerator()
    cpu = device.type == "cpu"
    cases = {
        "cnn6": (CNN6, 128 if cpu else 512),
        "preact_resnet18": (PreActResNet18, 8 if cpu else 128),
    }
    where = machine(device)
    console.print(
        f"{where}, {torch.get_num_threads()} threads, torch {torch.__version__}; columns without "
        "unit are in plain steps"
    )
    report: dict[str, Any] = {
        "device": str(device),
        "machine": where,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "steps": {},
    }
    goals: list[Goal] = []
    for name, (network, size) in cases.items():
        costs = measure_steps(network, size, device, options.seconds)
        console.print(table_of(f"{name}, batch {size}", costs))
        report["steps"][name] = {"batch": size, "costs": costs}
        goals += step_goals(name, costs, device)

    report["start_up_seconds"] = measure_start_up()
    report["input_images_per_second"] = measure_input(device)
    rest = Table("start-up and input", "median", "min", "max")
    for what, unit, found in [
        *((name, "s", found) for name, found in report["start_up_seconds"].items()),
        ("crop, flip, normalise", "images/s", report["input_images_per_second"]),
    ]:
        digits = 2 if unit == "s" else 0
        numbers = (
            ["not available", "", ""]
            if found is None
            else [f"{found[key]:,.{digits}f} {unit}" for key in ("median", "min", "max")]
        )
        rest.add_row(what, *numbers)
    console.print(rest)

    for goal in goals:
        console.print(str(goal), style="green" if goal.met else "red", highlight=False)
    report["goals"] = [{**asdict(goal), "met": goal.met} for goal in goals]
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=1) + "\n")
    console.print(f"Saved in {options.output}")


if __name__ == "__main__":
    main()
