"""Sweeps whose runs may start in other processes: what they print, and how a sweep ends early."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NoReturn, TextIO

from hydra.core.utils import env_override

from mln_lightning.errors import RunStopped
from mln_lightning.stopping import stoppable

OUTPUT = "output.txt"  # in a run folder: what a run beside others printed


@contextmanager
def output(run_dir: Path, *, beside: bool) -> Iterator[None]:
    """Send what is printed within to the run's folder, if other runs print at the same time.

    Args:
        run_dir: exists. A run that continues goes on with its file.
        beside: whether runs have processes of their own; else nothing changes.
    """
    if not beside:
        yield
        return
    with (run_dir / OUTPUT).open("ab") as file, _into(file, sys.stdout), _into(file, sys.stderr):
        yield


@contextmanager
def _into(file: BinaryIO, stream: TextIO) -> Iterator[None]:
    """Send a stream to a file, also what the processes write that are started meanwhile."""
    stream.flush()
    kept = os.dup(stream.fileno())
    os.dup2(file.fileno(), stream.fileno())
    try:
        yield
    finally:
        stream.flush()
        os.dup2(kept, stream.fileno())
        os.close(kept)


def launch(sweep: Callable[[], None], *, beside: bool) -> None:
    """Run a sweep, by whatever launcher, to its end.

    A process that dies (of too little memory, say) may take those runs with it that wait for it;
    that is said, and left to the report.

    Args:
        sweep: starts all runs and returns when they have ended.
        beside: whether runs have processes of their own, whose last words stay in their folders.

    Raises:
        SystemExit: a signal stopped the sweep; what to do was said.
    """
    if beside:
        print(f"What a run prints goes to its folder, {OUTPUT}.", flush=True)
    try:
        # Hydra would print a traceback and exit.
        with stoppable(None), env_override({"HYDRA_FULL_ERROR": "1"}):
            sweep()
    except RunStopped as stopped:
        _stopped(stopped.signum)
    except SystemExit as end:
        if beside and isinstance(end.code, int) and end.code > 128:
            _stopped(end.code - 128)
        raise
    except Exception as error:
        reason = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
        print(f"The sweep ended early: {reason}", file=sys.stderr, flush=True)
    if beside:
        print()


def _stopped(number: int) -> NoReturn:
    name = signal.Signals(number).name
    print(f"Stopped by {name}; the same command continues the sweep.", file=sys.stderr)
    sys.exit(128 + number)
