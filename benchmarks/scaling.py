"""Images per second of training on two processes over one, the whole batch being the same.

python -m benchmarks.scaling        one of the processes, started by the benchmark
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import asdict, dataclass
from statistics import median

import torch

from benchmarks.epochs import data_module, fit, images, metalabelnet, supervised
from benchmarks.report import Report, Table
from benchmarks.timing import Range
from mln_lightning.job import quiet

KINDS = {"plain training": supervised, "MetaLabelNet": metalabelnet}
ROUNDS = 2
_ASKED = "MLN_BENCHMARK_SCALING"  # tells a process its work


@dataclass(frozen=True)
class Work:
    """What each process does; the first epoch of a fit is not timed.

    Attributes:
        processes: that share every batch.
        threads: of each process.
        device: "cpu" or "cuda".
        batch: B, over all processes.
        batches: of an epoch.
        epochs: of a fit.
    """

    processes: int
    threads: int
    device: str
    batch: int
    batches: int
    epochs: int

    @property
    def images(self) -> int:
        return self.batch * self.batches

    def __str__(self) -> str:
        place = "one GPU each" if self.device == "cuda" else f"{self.threads} thread each"
        return f"{self.processes} process{'es' * (self.processes > 1)}, {place}"


def cases(device: torch.device) -> list[Work]:
    """One and two processes; on a single GPU there is nothing to share."""
    if device.type == "cuda":
        if torch.cuda.device_count() < 2:
            return []
        return [Work(n, 1, "cuda", batch=512, batches=40, epochs=3) for n in (1, 2)]
    return [Work(n, 1, "cpu", batch=16, batches=6, epochs=2) for n in (1, 2)]


def report(device: torch.device) -> Report:
    """Speed of every case over that of one process; no table where there is no second device."""
    works = cases(device)
    times: dict[Work, dict[str, list[float]]] = {
        work: {kind: [] for kind in KINDS} for work in works
    }
    for _ in range(ROUNDS):
        for work in works:
            for kind, seconds in run(work).items():
                times[work][kind] += seconds
    if not works:
        return Report({}, {})
    one = times[works[0]]
    rows = [
        (
            str(work),
            *(f"{work.images / median(found[kind]):.0f}" for kind in KINDS),
            *(f"{median(one[kind]) / median(found[kind]):.2f}" for kind in KINDS),
        )
        for work, found in times.items()
    ]
    header = ("", *(f"{kind}, images/s" for kind in KINDS), *(f"{kind}, times" for kind in KINDS))
    title = f"cnn6, batch {works[0].batch} over all processes, whole epochs"
    numbers = [
        {**asdict(work), "seconds": {kind: asdict(Range.of(t)) for kind, t in found.items()}}
        for work, found in times.items()
    ]
    return Report({"scaling": Table(title, header, rows)}, {"cases": numbers})


def run(work: Work) -> dict[str, list[float]]:
    """Seconds of the timed epochs of each kind of training.

    Raises:
        RuntimeError: a process failed.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {
        **os.environ,
        _ASKED: json.dumps(asdict(work)),
        "OMP_NUM_THREADS": str(work.threads),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "WORLD_SIZE": str(work.processes),
        "NODE_RANK": "0",
    }
    command = [sys.executable, "-m", "benchmarks.scaling"]
    fleet = [
        subprocess.Popen(
            command,
            env={**common, "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(work.processes)
    ]
    ended = [process.communicate() for process in fleet]
    for process, (_, errors) in zip(fleet, ended, strict=True):
        if process.returncode:
            raise RuntimeError(f"A process of the benchmark failed:\n{errors[-2000:]}")
    found: dict[str, list[float]] = json.loads(ended[0][0].splitlines()[-1])
    return found


def main() -> None:
    quiet()
    work = Work(**json.loads(os.environ[_ASKED]))
    torch.set_num_threads(work.threads)
    train, meta = images(work.images, max(work.batch, 10))
    times = {
        kind: fit(
            make(),
            data_module(train, meta, work.batch),
            work.epochs,
            accelerator=work.device,
            devices=work.processes,
            strategy="ddp" if work.processes > 1 else "auto",
        )[1:]
        for kind, make in KINDS.items()
    }
    print(json.dumps(times))


if __name__ == "__main__":
    main()
