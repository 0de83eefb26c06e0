"""Processes that start and end together: real ones, whose work is a few lines."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mln_lightning import supervise as module
from mln_lightning.errors import RunStopped
from mln_lightning.failure import Failure, ProcessFailedError
from mln_lightning.stopping import stoppable
from mln_lightning.supervise import supervise

SRC = Path(__file__).parents[1] / "src"

START = """
import os, signal, sys, time
from multiprocessing.connection import Connection
from pathlib import Path
from mln_lightning.failure import Failure
from mln_lightning.supervise import Report
rank = int(os.environ["PLACE"])
line = Connection(0)
folder = Path(line.recv())
(folder / f"{rank}.pid").write_text(str(os.getpid()))
def wait_for(*names):
    while not all((folder / name).exists() for name in names):
        time.sleep(0.01)
def say(failure=None, signum=None, seconds=None):
    line.send(Report(time.monotonic() if seconds is None else seconds, failure, signum))
"""


def run(work: str, folder: Path, count: int = 2) -> None:
    """Supervise processes that do ``work``, in a run that signals may stop."""
    command = [sys.executable, "-c", START + textwrap.dedent(work)]
    common = {**os.environ, "PYTHONPATH": str(SRC)}
    places = {rank: {**common, "PLACE": str(rank)} for rank in range(count)}
    with stoppable(folder / "last.ckpt"):
        supervise(command, places, str(folder))


def failure_of(work: str, folder: Path) -> Failure:
    with pytest.raises(ProcessFailedError) as caught:
        run(work, folder)
    return caught.value.failure


@pytest.fixture(autouse=True)
def _nobody_stays(tmp_path: Path) -> Iterator[None]:
    yield
    pids = [int(path.read_text()) for path in tmp_path.glob("*.pid")]
    assert pids
    assert [pid for pid in pids if alive(pid)] == []


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """For processes that will not end by themselves."""
    monkeypatch.setattr(module, "_TOGETHER", 0.1)
    monkeypatch.setattr(module, "_LEAVE", 0.1)


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie, whom its new parent is slow to bury, does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_all_get_the_task_and_the_first_one_writes(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    work = """
        print("out", rank, flush=True)
        print("err", rank, file=sys.stderr)
        (folder / str(rank)).touch()
        say()
    """
    run(work, tmp_path, count=3)
    assert {path.name for path in tmp_path.iterdir()} >= {"0", "1", "2"}
    assert capfd.readouterr() == ("out 0\n", "err 0\n")


@pytest.mark.usefixtures("hasty")
def test_a_killed_process_takes_the_others_along(tmp_path: Path) -> None:
    work = """
        wait_for("0.pid", "1.pid")
        if rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(600)
    """
    failure = failure_of(work, tmp_path)
    assert failure.exit_code == 1
    assert failure.sentence is not None
    assert "rank 1 was killed by SIGKILL (often for lack of memory)" in failure.sentence


@pytest.mark.usefixtures("hasty")
def test_who_does_not_listen_is_killed(tmp_path: Path) -> None:
    work = """
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        (folder / f"deaf {rank}").touch()
        wait_for("deaf 0", "deaf 1")
        if rank == 0:
            os._exit(3)
        time.sleep(600)
    """
    sentence = failure_of(work, tmp_path).sentence
    assert sentence == (
        "The process of rank 0 ended with code 3 and without a word, and the run with it."
    )


@pytest.mark.usefixtures("hasty")
def test_a_crash_leaves_its_last_words(tmp_path: Path) -> None:
    work = """
        if rank == 1:
            raise ZeroDivisionError("a" * 9000 + " bug in C")
        time.sleep(600)
    """
    failure = failure_of(work, tmp_path)
    assert failure.trace.endswith("aaa bug in C\n")
    assert len(failure.trace) == 4000
    assert failure.sentence is not None
    assert "rank 1 ended with code 1" in failure.sentence


@pytest.mark.parametrize("first", [0, 1])
def test_the_first_failure_counts_whenever_it_is_heard(tmp_path: Path, first: int) -> None:
    """One that loses another fails too, and may be faster to say so."""
    work = f"""
        wait_for("0.pid", "1.pid")
        seconds = 1.0 if rank == {first} else 2.0
        time.sleep(0.2 if rank == {first} else 0.0)
        say(Failure(f"rank {{rank}} fails", "the trace", 2), seconds=seconds)
        sys.exit(2)
    """
    assert failure_of(work, tmp_path) == Failure(f"rank {first} fails", "the trace", 2)


def test_one_without_a_word_counts_before_those_that_lost_it(tmp_path: Path) -> None:
    work = """
        wait_for("0.pid", "1.pid")
        if rank == 1:
            time.sleep(0.2)
            os.kill(os.getpid(), signal.SIGSEGV)
        say(Failure("connection lost", "", 1))
        sys.exit(1)
    """
    sentence = failure_of(work, tmp_path).sentence
    assert sentence is not None
    assert "rank 1 was killed by SIGSEGV" in sentence


def test_what_comes_after_the_work_does_not_count(tmp_path: Path) -> None:
    run("say(); os.kill(os.getpid(), signal.SIGKILL)", tmp_path)


OBEY = """
    def stop(number, frame):
        (folder / f"{rank} got {number}").touch()
        say(signum=number)
        sys.exit(128 + number)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT, signal.SIGTERM])
    (folder / f"ready {rank}").touch()
    wait_for("ready 0", "ready 1")
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_passed_on_to_all(tmp_path: Path, number: int) -> None:
    work = (
        OBEY
        + f"""
    if rank == 0:
        os.kill(os.getppid(), {number})
    time.sleep(600)
    """
    )
    with pytest.raises(RunStopped) as stopped:
        run(work, tmp_path)
    assert stopped.value.signum == number
    assert len(list(tmp_path.glob(f"? got {int(number)}"))) == 2


def test_a_signal_to_one_stops_all_if_they_agree(tmp_path: Path) -> None:
    work = (
        OBEY
        + """
    say(signum=signal.SIGTERM)
    sys.exit(143)
    """
    )
    with pytest.raises(RunStopped) as stopped:
        run(work, tmp_path)
    assert stopped.value.signum == signal.SIGTERM


def test_a_checkpoint_that_cannot_be_written_is_told_after_a_signal(tmp_path: Path) -> None:
    work = """
        def stop(number, frame):
            say(Failure("no space left", "", 2))
            sys.exit(2)
        signal.signal(signal.SIGTERM, stop)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        (folder / f"ready {rank}").touch()
        wait_for("ready 0", "ready 1")
        if rank == 0:
            os.kill(os.getppid(), signal.SIGTERM)
        time.sleep(600)
    """
    assert failure_of(work, tmp_path).sentence == "no space left"


WORKER = """
import os, sys, time, types
from pathlib import Path
def run_job(cfg, run_dir, **record):
    (run_dir / f"{os.environ['PLACE']}.pid").write_text(str(os.getpid()))
    time.sleep(600)
sys.modules["mln_lightning.job"] = types.SimpleNamespace(run_job=run_job)
from mln_lightning.worker import main
main()
"""

SUPERVISOR = """
import os, sys
from pathlib import Path
from mln_lightning.config import Job
from mln_lightning.supervise import supervise
places = {rank: {**os.environ, "PLACE": str(rank)} for rank in range(2)}
supervise([sys.executable, "-c", sys.argv[1]], places, Job({}, Path(sys.argv[2]), {}, []))
"""


def test_nobody_outlives_a_killed_supervisor(tmp_path: Path) -> None:
    """With the real worker, around a job that would take ten minutes."""
    command = [sys.executable, "-c", SUPERVISOR, WORKER, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(SRC)}
    with subprocess.Popen(command, env=environment) as supervisor:
        while len(pids := list(tmp_path.glob("*.pid"))) < 2 or not all(map(Path.read_text, pids)):
            time.sleep(0.02)
        supervisor.kill()
    while any(alive(int(path.read_text())) for path in pids):
        time.sleep(0.02)
