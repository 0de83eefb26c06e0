"""Where the time of a MetaLabelNet step goes: by part of the step, and by operator.

    python -m benchmarks.profile [--steps 5] [--batch 32] [--output benchmarks/profile.md]

An operator belongs to the outermost part during which it was called, whichever thread called it. On
a GPU operators only start kernels; the kernels' own times then stand beside them.
"""

from __future__ import annotations

import argparse
import functools
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch import nn
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile, record_function

from benchmarks.machine import about, accelerator, sentence
from benchmarks.report import Table
from benchmarks.steps import NUM_CLASSES, ModuleStep, metalabelnet, random_batch
from benchmarks.timing import synchronize
from mln_lightning.batch import TrainBatch
from mln_lightning.data import Normalize, RandomCropFlip
from mln_lightning.data.transfer import Transfer
from mln_lightning.job import quiet
from mln_lightning.labels import LabelGenerator
from mln_lightning.meta import step as meta
from mln_lightning.models import MetaLabelNet
from mln_lightning.models.epoch_means import EpochMeans
from mln_lightning.networks import CNN6

SHAPE = (3, 32, 32)
OUTPUT = Path(__file__).with_name("profile.md")
_MARK = "part: "
INPUT, STEP, REST = "transfer and augmentation", "step", "the rest of the step"
FORWARDS = ("training forward", "meta forward", "tangent")
FUNCTIONS = [
    (MetaLabelNet, "encode", "encoder"),
    (LabelGenerator, "forward", "label generator"),
    (meta, "_virtual", "virtual gradient and update"),
    (meta, "_gradient", "meta backward"),
    (meta, "logit_tangent", "tangent"),
    (meta, "_label_gradient", "label gradient"),
    (MetaLabelNet, "manual_backward", "conventional backward"),
    (EpochMeans, "record", "epoch means"),
]


class Share(NamedTuple):
    """Milliseconds of a step: by the clock, in operators on the processor, in kernels."""

    wall: float
    operators: float
    kernels: float


def _named(function: Callable[..., Any], part: str) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with record_function(_MARK + part):
            return function(*args, **kwargs)

    return call


@contextmanager
def named_parts(step: ModuleStep) -> Iterator[None]:
    """Tell the profiler which part of a step is running."""
    forwards, running = itertools.cycle(FORWARDS), ExitStack()

    def enter(network: nn.Module, args: Any) -> None:
        running.enter_context(record_function(_MARK + next(forwards)))

    def leave(network: nn.Module, args: Any, output: Any) -> None:
        running.close()

    network = step.model.network
    with ExitStack() as stack:
        for owner, name, part in FUNCTIONS:
            stack.enter_context(patch.object(owner, name, _named(getattr(owner, name), part)))
        for optimizer in step.optimizers:
            named = _named(optimizer.step, "optimisers")
            stack.enter_context(patch.object(optimizer, "step", named))
        stack.callback(network.register_forward_pre_hook(enter).remove)
        stack.callback(network.register_forward_hook(leave).remove)
        yield


def shares(events: Sequence[FunctionEvent], steps: int) -> dict[str, Share]:
    """What each part takes of a step, in the order in which they first begin; then the rest.

    Args:
        events: of a profile in which `INPUT` and `STEP` were marked for each of the steps.
        steps: how many there are.
    """
    whole = _MARK + STEP
    marks = [event for event in events if event.name.startswith(_MARK) and event.name != whole]
    marks.sort(key=lambda event: (event.time_range.start, -event.time_range.end))
    outer: list[FunctionEvent] = []
    for mark in marks:
        if not outer or mark.time_range.start >= outer[-1].time_range.end:
            outer.append(mark)
    wall: dict[str, float] = defaultdict(float)
    for mark in outer:
        wall[mark.name.removeprefix(_MARK)] += mark.time_range.elapsed_us()
    took = sum(event.time_range.elapsed_us() for event in events if event.name == whole)
    wall[REST] = took - sum(time for name, time in wall.items() if name != INPUT)

    operators: dict[str, float] = defaultdict(float)
    kernels: dict[str, float] = defaultdict(float)
    place = 0
    for event in sorted(events, key=lambda event: event.time_range.start):
        if event.name.startswith(_MARK) or event.device_type != torch.autograd.DeviceType.CPU:
            continue
        start = event.time_range.start
        while place < len(outer) and outer[place].time_range.end <= start:
            place += 1
        inside = place < len(outer) and outer[place].time_range.start <= start
        part = outer[place].name.removeprefix(_MARK) if inside else REST
        operators[part] += event.self_cpu_time_total
        kernels[part] += event.self_device_time_total
    each = 1000 * steps
    return {
        part: Share(time / each, operators[part] / each, kernels[part] / each)
        for part, time in wall.items()
    }


def take(device: torch.device, size: int, steps: int) -> list[FunctionEvent]:
    """Events of some steps with cnn6, input included.

    Args:
        device: where to run.
        size: B of both batches.
        steps: after two that are not looked at.
    """
    torch.manual_seed(0)
    step = metalabelnet(CNN6(SHAPE, NUM_CLASSES).to(device))
    batch = random_batch(SHAPE, size)
    pixels = [(part.images * 50 + 128).clamp(0, 255).to(torch.uint8) for part in batch.values()]
    raw = TrainBatch(
        train=batch["train"]._replace(images=pixels[0]),
        meta=batch["meta"]._replace(images=pixels[1]),
    )
    transfer = Transfer(
        Normalize((0.5,) * 3, (0.5,) * 3), RandomCropFlip(4), seed=0, spare_unlabelled=False
    )
    kinds = [ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * (device.type == "cuda")]

    def once() -> None:
        with record_function(_MARK + INPUT):
            there = step.model.transfer_batch_to_device(raw, device, 0)
            given = transfer.train(there, epoch=0, dtype=torch.float32)
        with record_function(_MARK + STEP):
            step(given)

    for _ in range(2):
        once()
    with named_parts(step), profile(activities=kinds) as profiler:
        for _ in range(steps):
            once()
        synchronize(device)
    return list(profiler.events() or [])


def part_table(found: dict[str, Share], gpu: bool) -> Table:
    total = sum(share.wall for share in found.values())
    header = ["part", "ms", "share", "in operators, ms", *["in kernels, ms"] * gpu]
    rows = [
        [
            part,
            f"{share.wall:.2f}",
            f"{share.wall / total:.1%}",
            f"{share.operators:.2f}",
            *[f"{share.kernels:.2f}"] * gpu,
        ]
        for part, share in found.items()
    ]
    sums = [f"{sum(share[n] for share in found.values()):.2f}" for n in range(3)]
    rows.append(["all", sums[0], "100.0%", sums[1], *[sums[2]] * gpu])
    return Table("by part of the step", header, rows)


def operator_table(events: Sequence[FunctionEvent], steps: int, gpu: bool) -> Table:
    """The ten operators with the most time of their own."""
    calls: dict[str, int] = defaultdict(int)
    time: dict[str, float] = defaultdict(float)
    for event in events:
        if event.name.startswith(_MARK) or event.device_type != torch.autograd.DeviceType.CPU:
            continue
        calls[event.name] += 1
        time[event.name] += event.self_device_time_total if gpu else event.self_cpu_time_total
    total = sum(time.values())
    rows = [
        (name, f"{calls[name] / steps:.0f}", f"{spent / 1000 / steps:.2f}", f"{spent / total:.1%}")
        for name, spent in sorted(time.items(), key=lambda item: -item[1])[:10]
    ]
    where = "kernels" if gpu else "operators"
    return Table(f"by operator, in {where}", ("operator", "calls a step", "ms", "share"), rows)


def main() -> None:
    device = accelerator()
    gpu = device.type == "cuda"
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--batch", type=int, default=128 if gpu else 32)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    options = parser.parse_args()
    quiet()
    events = take(device, options.batch, options.steps)
    tables = [
        part_table(shares(events, options.steps), gpu),
        operator_table(events, options.steps, gpu),
    ]
    text = (
        f"# Where a step's time goes\n\nA step of MetaLabelNet, cnn6, batch {options.batch}, "
        f"float32, input included, mean of {options.steps} under the profiler, which itself costs "
        f"some time for every operator.\nMeasured on {sentence(about(device))}; "
        "`python -m benchmarks.profile` writes this page.\n"
    )
    for table in tables:
        text += f"\n## {table.title.capitalize()}\n\n{table.markdown()}"
    options.output.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
