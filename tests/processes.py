"""Runs in real processes of their own, which may be struck by real signals."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

# A server that has imported everything, but computed nothing, forks a fresh process per run.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    ["mln_lightning.job", "mln_lightning.run", "sklearn.datasets", "torchvision.datasets"]
)

Point = tuple[str, int]
"""A function of the run by name (see `strike_at`), and at which of its calls."""


class Strike(NamedTuple):
    """A signal that a run's process gets at some point."""

    point: Point
    number: int = signal.SIGKILL


def strike_at(strike: Strike) -> None:
    """Arrange for this process to receive the signal at that point of its run."""
    from mln_lightning import job
    from mln_lightning.models import NoisyLabelModule

    where, count = strike.point
    seen = [0]

    def before(function: Callable[..., object]) -> Callable[..., object]:
        def wrapped(*args: object, **kwargs: object) -> object:
            seen[0] += 1
            if seen[0] == count:
                os.kill(os.getpid(), strike.number)
            return function(*args, **kwargs)

        return wrapped

    if where == "step":
        NoisyLabelModule.training_step = before(NoisyLabelModule.training_step)
    elif where == "validation":
        NoisyLabelModule.validation_step = before(NoisyLabelModule.validation_step)
    elif where == "test":
        NoisyLabelModule.test_step = before(NoisyLabelModule.test_step)
    elif where == "replace":  # a file is written, but not yet in its place
        os.replace = before(os.replace)
    elif where == "data":
        job.instantiate = before(job.instantiate)
    elif where == "export":
        job.write_classifier = before(job.write_classifier)
    else:
        assert where == "results"
        job.write_results = before(job.write_results)


class Ended(NamedTuple):
    """How a command ended; ``code`` is negative if a signal killed it."""

    code: int
    out: str
    err: str


def command(
    folder: Path,
    *arguments: str,
    strike: Strike | None = None,
    largest_file: int | None = None,
    terminal: tuple[str, int] | None = None,
) -> Ended:
    """``mln <arguments>`` in ``folder``, in a process of its own.

    Args:
        folder: existing; working folder and place of the outputs.
        arguments: of the command line.
        strike: a signal for the process.
        largest_file: bytes; writing more to a file fails, as it does on a full disk.
        terminal: name and columns of a terminal that shows all; nothing is kept then.
    """
    code = in_a_process(_command, folder, arguments, strike, largest_file, terminal)
    if terminal is not None:
        return Ended(code, "", "")
    return Ended(code, (folder / ".stdout").read_text(), (folder / ".stderr").read_text())


def in_a_process(function: Callable[..., None], *arguments: object) -> int:
    """Exit code of ``function(*arguments)``; negative if a signal killed it."""
    process = PROCESSES.Process(target=function, args=arguments)
    process.start()
    process.join(timeout=240)
    if process.exitcode is None:
        process.kill()
        raise TimeoutError("the run hangs")
    return process.exitcode


def calm() -> None:
    """One thread and deterministic algorithms, as in the tests' own process."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)


def _command(
    folder: Path,
    arguments: tuple[str, ...],
    strike: Strike | None,
    largest_file: int | None,
    terminal: tuple[str, int] | None,
) -> None:
    from mln_lightning import run

    calm()
    os.chdir(folder)
    if terminal is None:
        for name, number in ((".stdout", 1), (".stderr", 2)):
            with (folder / name).open("wb") as file:
                os.dup2(file.fileno(), number)
    else:
        name, columns = terminal
        os.environ |= {"TERM": "xterm-256color", "COLUMNS": str(columns)}
        screen = os.open(name, os.O_RDWR | os.O_NOCTTY)
        os.dup2(screen, 1)
        os.dup2(screen, 2)
    if largest_file is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    if strike is not None:
        strike_at(strike)
    sys.argv = ["mln", *arguments]
    run.main()
