"""One process of a run: `python -m mln_lightning.worker`, started by `mln_lightning.launch`."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from multiprocessing.connection import Connection
from typing import NoReturn

from mln_lightning.config import Job
from mln_lightning.errors import RunStopped
from mln_lightning.failure import describe
from mln_lightning.folders import LAST_CHECKPOINT
from mln_lightning.stopping import SIGNALS, stoppable
from mln_lightning.supervise import Report


def train(job: Job) -> None:
    """Do this process's part of a run; the heavy imports start here.

    Raises:
        Exception: whatever `mln_lightning.job.run_job` does.
    """
    # Threads that spin while they wait make small networks ten times slower on a busy machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from mln_lightning.job import run_job  # imports torch

    run_job(job.cfg, job.run_dir, choices=job.choices, overrides=job.overrides)


def main() -> NoReturn:
    """Take a job from the supervisor, do this process's part of it, and report."""
    for number in SIGNALS:  # blocked until here; ignored before and after the job
        signal.signal(number, signal.SIG_IGN)
    line = Connection(sys.stdin.fileno())
    job: Job = line.recv()
    threading.Thread(target=_end_with, args=(line,), daemon=True).start()
    code = 0
    try:
        with stoppable(job.run_dir / LAST_CHECKPOINT):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            train(job)
        report = Report(time.monotonic())
    except RunStopped as stopped:
        report, code = Report(time.monotonic(), signum=stopped.signum), stopped.exit_code
    except Exception as error:
        now = time.monotonic()  # before the others can have noticed
        failure = describe(error)
        report, code = Report(now, failure), failure.exit_code
    sys.stdout.flush()  # what the supervisor says comes after it
    line.send(report)
    sys.exit(code)


def _end_with(supervisor: Connection) -> None:
    """End this process at once when its supervisor is gone: nobody else would."""
    try:
        supervisor.recv()  # there is nothing more to come
    except (EOFError, OSError):
        os._exit(1)


if __name__ == "__main__":
    main()
