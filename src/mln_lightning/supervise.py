"""Processes that start together and end together.

Each gets a line to its supervisor as its standard input, a `multiprocessing` connection: the task
comes over it, and a `Report` goes back. When the supervisor is gone, however it went, the line
ends, and with it the process.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import IO

from mln_lightning.errors import RunStopped
from mln_lightning.failure import Failure, ProcessFailedError
from mln_lightning.stopping import SIGNALS

_LOOK = 0.1  # seconds between two looks at processes that say nothing
_TOGETHER = 1.0  # seconds in which those fall that one has drawn down
_CHECKPOINT = 120.0  # seconds to finish a step and save it
_LEAVE = 3.0  # seconds from SIGTERM to SIGKILL
_LAST_WORDS = 4000  # bytes of the error output that are kept


@dataclass(frozen=True)
class Report:
    """What a process says of its end.

    Attributes:
        seconds: when, by the clock that all processes of a machine share (`time.monotonic`).
        failure: why it failed, if it did.
        signum: the signal that stopped it, if one did.
    """

    seconds: float
    failure: Failure | None = None
    signum: int | None = None


@dataclass(eq=False)
class _Child:
    rank: int
    process: subprocess.Popen[bytes]
    line: Connection
    errors: IO[bytes] | None  # None: they go to the screen
    report: Report | None = None

    def listen(self) -> None:
        """Take the report, if it is there."""
        try:
            while not self.line.closed and self.line.poll():
                self.report = self.line.recv()
        except (EOFError, OSError):
            self.line.close()

    def ended(self) -> bool:
        if self.process.poll() is None:
            return False
        self.listen()  # its last word may still be on the line
        return True

    def done(self) -> bool:
        """Whether its work is; it may still be about to end."""
        report = self.report
        return report is not None and report.failure is None and report.signum is None

    def fell(self) -> bool:
        """Whether it ended, or is about to, with its work undone."""
        return (self.ended() or self.report is not None) and not self.done()


def supervise(
    command: Sequence[str], environments: Mapping[int, Mapping[str, str]], task: object
) -> None:
    """Run a command in several processes; as soon as one fails, end all.

    Only the first may write to the screen.

    Args:
        command: program and arguments; `mln_lightning.worker` shows what it has to do.
        environments: rank → all environment variables of that process.
        task: sent to each; anything that can be pickled.

    Raises:
        ProcessFailedError: one failed or was killed; tells of the one that did so first.
        RunStopped: a signal was passed on to all, or stopped them; names no checkpoint.
    """
    children: list[_Child] = []
    try:
        _start(children, command, environments, task)
        _wait(children, lambda: all(c.done() for c in children) or any(c.fell() for c in children))
        if any(child.fell() for child in children):
            _wait(children, lambda: all(child.ended() for child in children), _TOGETHER)
        error = _first_error(children)
    except RunStopped as stopped:
        for child in children:
            child.process.send_signal(stopped.signum)
        _wait(children, lambda: all(child.ended() for child in children), _CHECKPOINT)
        error = _first_error(children)
        # One that was in the way of others' stopping has nothing to tell.
        if not (isinstance(error, ProcessFailedError) and error.failure.exit_code == 2):
            error = RunStopped(stopped.signum)
    finally:
        _end(children)
    if error is not None:
        raise error


def _start(
    children: list[_Child],
    command: Sequence[str],
    environments: Mapping[int, Mapping[str, str]],
    task: object,
) -> None:
    """Fill ``children``; signals wait until all are there, and in each until it can obey them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        for rank, environment in environments.items():
            line, theirs = Pipe()
            errors = tempfile.TemporaryFile() if children else None  # noqa: SIM115
            with theirs:
                process = subprocess.Popen(
                    command,
                    env=environment,
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL if children else None,
                    stderr=errors,
                )
            children.append(_Child(rank, process, line, errors))
            with suppress(OSError):  # it ended at once, which is seen later
                line.send(task)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _wait(
    children: Sequence[_Child], until: Callable[[], bool], seconds: float = float("inf")
) -> None:
    """Take reports until something holds, or time is up."""
    end = time.monotonic() + seconds
    while not until() and time.monotonic() < end:
        heard = wait([child.line for child in children if not child.line.closed], timeout=_LOOK)
        for child in children:
            if child.line in heard:
                child.listen()


def _first_error(children: Sequence[_Child]) -> ProcessFailedError | RunStopped | None:
    """Why the first child fell, if any did; one without a word did not fall by another's fall."""
    child = min(
        (child for child in children if child.fell()),
        key=lambda child: child.report.seconds if child.report else 0.0,
        default=None,
    )
    if child is None:
        return None
    report = child.report
    if report is not None and report.signum is not None:
        return RunStopped(report.signum)
    if report is not None and report.failure is not None:
        return ProcessFailedError(report.failure)
    words = ""
    if child.errors is not None:
        length = child.errors.seek(0, os.SEEK_END)
        child.errors.seek(max(0, length - _LAST_WORDS))
        words = child.errors.read().decode(errors="replace")
    code = child.process.returncode
    if code < 0:
        end = f"was killed by {signal.Signals(-code).name}"
        end += " (often for lack of memory)" if -code == signal.SIGKILL else ""
    else:
        end = f"ended with code {code} and without a word"
    text = f"The process of rank {child.rank} {end}, and the run with it."
    return ProcessFailedError(Failure(text, words, exit_code=1))


def _end(children: Sequence[_Child]) -> None:
    """Nobody stays."""
    running = [child.process for child in children if not child.done()]
    for process in running:
        process.terminate()
    end = time.monotonic() + _LEAVE
    for child in children:
        try:
            child.process.wait(timeout=max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.process.kill()
            child.process.wait()
    for child in children:
        child.line.close()
        if child.errors is not None:
            child.errors.close()
