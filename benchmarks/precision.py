"""How long a step takes in each precision, plain and MetaLabelNet's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial

import torch

from benchmarks.report import Report, Table, spread
from benchmarks.steps import NUM_CLASSES, Step, metalabelnet, plain, random_batch
from benchmarks.timing import Range, ratio, take_turns
from mln_lightning.batch import TrainBatch
from mln_lightning.networks import CNN6
from mln_lightning.precision import use_tf32

SHAPE = (3, 32, 32)
KINDS: dict[str, Callable[..., Step]] = {"plain": plain, "MetaLabelNet": metalabelnet}


@dataclass(frozen=True)
class Mode:
    """How the numbers of a step are kept.

    Attributes:
        precision: as Lightning names it.
        tf32: let CUDA round the factors of float32 products to ten bits.
        channels_last: order of the images' and weights' axes in memory.
    """

    precision: str
    tf32: bool = False
    channels_last: bool = False

    def __str__(self) -> str:
        parts = [self.precision, *["TF32"] * self.tf32, *["channels_last"] * self.channels_last]
        return ", ".join(parts)


FLOAT32 = Mode("32-true")


def modes(device: torch.device) -> list[Mode]:
    """What makes a difference there; Lightning has no fp16 on a CPU."""
    if device.type == "cpu":
        base = [FLOAT32, Mode("bf16-mixed")]
    else:
        base = [FLOAT32, Mode("32-true", tf32=True), Mode("bf16-mixed"), Mode("16-mixed")]
    return [Mode(m.precision, m.tf32, last) for m in base for last in (False, True)]


def report(device: torch.device, budget: float = 20.0) -> Report:
    """Every kind of step in every mode, with cnn6.

    Args:
        device: where to run.
        budget: seconds for the timed rounds.
    """
    size = 32 if device.type == "cpu" else 512
    actions = {
        f"{kind}: {mode}": _action(make, mode, size, device)
        for mode in modes(device)
        for kind, make in KINDS.items()
    }
    for action in actions.values():
        action()
    times = take_turns(actions, budget, device)
    use_tf32(None)
    base = times[f"plain: {FLOAT32}"]
    rows = [
        (
            str(mode),
            *(spread(ratio(times[f"{kind}: {mode}"], base)) for kind in KINDS),
            spread(ratio(times[f"MetaLabelNet: {FLOAT32}"], times[f"MetaLabelNet: {mode}"])),
        )
        for mode in modes(device)
    ]
    header = ("precision", "plain", "MetaLabelNet", "times as fast as its float32")
    title = f"time in plain float32 steps (min-max), cnn6, batch {size}"
    return Report(
        {"precision": Table(title, header, rows)},
        {"batch": size, "seconds": {name: asdict(Range.of(t)) for name, t in times.items()}},
    )


def _action(
    make: Callable[..., Step], mode: Mode, size: int, device: torch.device
) -> Callable[[], None]:
    torch.manual_seed(0)
    network, batch = CNN6(SHAPE, NUM_CLASSES).to(device), random_batch(SHAPE, size, device)
    if mode.channels_last:
        network = network.to(memory_format=torch.channels_last)
        batch = TrainBatch(
            train=batch["train"]._replace(images=_last(batch["train"].images)),
            meta=batch["meta"]._replace(images=_last(batch["meta"].images)),
        )
    return partial(_take, make(network, precision=mode.precision), batch, mode.tf32)


def _take(step: Step, batch: TrainBatch, tf32: bool) -> None:
    use_tf32(tf32)
    step(batch)


def _last(images: torch.Tensor) -> torch.Tensor:
    return images.contiguous(memory_format=torch.channels_last)
