"""ResNet-50 on photographs: the FLOPs and the memory of each kind of step, its time on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial

import torch
from torch import nn
from torchvision.models import resnet50

from benchmarks.goals import photograph_goals
from benchmarks.measure import Cost, allocated, count
from benchmarks.published import PublishedStep
from benchmarks.report import Report, Table
from benchmarks.steps import NUM_CLASSES, Step, metalabelnet, plain, random_batch
from benchmarks.timing import Range, ratio, take_turns

SHAPE, SIZE = (3, 224, 224), 32
PLAIN, OURS, LEAN, PUBLISHED = "plain training", "MetaLabelNet", "lean memory", "published way"
STEPS: dict[str, Callable[[nn.Module], Step]] = {
    PLAIN: plain,
    OURS: metalabelnet,
    LEAN: partial(metalabelnet, lean_memory=True),
    PUBLISHED: PublishedStep,
}


def report(device: torch.device, budget: float = 20.0) -> Report:
    """Counted for a whole batch on any machine; timed on a GPU only.

    Args:
        device: where to run.
        budget: seconds for the timed rounds.
    """
    counted = counts()
    base = counted[PLAIN]
    seconds: dict[str, list[float]] = {}
    held: dict[str, int] = {}
    if device.type == "cuda":
        seconds, held = on_device(device, budget)
    rows = [
        (
            name,
            f"{cost.flops / 1e12:.2f}",
            f"{cost.flops / base.flops:.2f}",
            f"{cost.live_bytes / 1e9:.2f}",
            f"{cost.live_bytes / base.live_bytes:.2f}",
            *(
                (
                    f"{held[name] / 1e9:.2f}",
                    f"{Range.of(seconds[name]).median * 1e3:.0f}",
                    f"{ratio(seconds[name], seconds[PLAIN]).median:.2f}",
                )
                if held
                else ()
            ),
        )
        for name, cost in counted.items()
    ]
    header = ["step", "TFLOP", "FLOPs, plain steps", "live GB", "memory, plain steps"]
    header += ["allocated GB", "ms", "time, plain steps"] if held else []
    table = Table(f"resnet50, {SHAPE[1]} x {SHAPE[2]}, batch {SIZE}", header, rows)
    numbers = {
        name: {
            **asdict(cost),
            "cuda_bytes": held.get(name),
            "seconds": asdict(Range.of(seconds[name])) if seconds else None,
        }
        for name, cost in counted.items()
    }
    return Report({"resnet50": table}, numbers, photograph_goals(held.get(OURS)))


def counts(size: int = SIZE) -> dict[str, Cost]:
    """FLOPs and live memory of each kind of step, with tensors that have no content."""
    batch = random_batch(SHAPE, size, "meta")
    return {
        name: count(make(resnet50(num_classes=NUM_CLASSES).to("meta")), batch)
        for name, make in STEPS.items()
    }


def on_device(device: torch.device, budget: float) -> tuple[dict[str, list[float]], dict[str, int]]:
    """Seconds of each kind of step, and the most bytes that CUDA's allocator handed out for it."""
    batch = random_batch(SHAPE, SIZE, device)
    steps: dict[str, Step] = {}
    held: dict[str, int] = {}
    for name, make in STEPS.items():
        before = torch.cuda.memory_allocated(device)
        steps[name] = make(resnet50(num_classes=NUM_CLASSES).to(device))
        held[name] = allocated(steps[name], batch, before)
    actions = {name: partial(step, batch) for name, step in steps.items()}
    return take_turns(actions, budget, device), held
