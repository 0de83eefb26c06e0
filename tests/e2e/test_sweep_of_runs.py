"""A sweep of real runs, stopped and continued."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from processes import Ended, Strike, command

ROOT = Path(__file__).parents[2]
GRID = (
    *("-m", "dataset=blobs", "noise=sym,asym", "model=finetune,metalabelnet"),
    *("trainer.max_epochs=2", "trainer.accelerator=cpu", "model.warmup_epochs=1"),
)
STEPS = 10  # of an epoch
IN_THE_THIRD_RUN = ("step", 2 * 2 * STEPS + STEPS + 2)  # its second epoch


def states(where: Path) -> list[str]:
    """What each run folder holds, in running order: sym before asym, as the grid says."""
    found = []
    for noise in ("sym", "asym"):
        for model in ("finetune", "metalabelnet"):
            folders = list(where.glob(f"outputs/blobs/{noise}-0.4/{model}/seed-0-*"))
            assert len(folders) <= 1
            files = {path.name for folder in folders for path in folder.iterdir()}
            done = "results.json" in files
            found.append("finished" if done else "begun" if "last.ckpt" in files else "nothing")
    return found


def checked_end(ended: Ended, where: Path) -> None:
    assert ended.code == 0, ended.err
    assert "4 runs: 2 finished, 1 to resume, 1 to do" in ended.out
    report = [line for line in ended.out.splitlines() if line.startswith(("finished", "failed"))]
    assert len(report) == 2
    assert all(line.startswith("finished  outputs/blobs/asym-0.4/") for line in report)
    assert states(where) == ["finished"] * 4


@pytest.mark.slow
def test_killed_and_continued(tmp_path: Path) -> None:
    ended = command(tmp_path, *GRID, strike=Strike(IN_THE_THIRD_RUN))
    assert ended.code == -signal.SIGKILL
    assert "4 runs: 0 finished, 0 to resume, 4 to do" in ended.out
    assert states(tmp_path) == ["finished", "finished", "begun", "nothing"]
    results = sorted(tmp_path.rglob("results.json"))
    before = [path.read_bytes() for path in results]

    checked_end(command(tmp_path, *GRID), tmp_path)
    assert [path.read_bytes() for path in results] == before, "finished runs stay as they were"

    again = command(tmp_path, *GRID)
    assert (again.code, again.out) == (0, "4 runs: 4 finished, 0 to resume, 0 to do\n")

    collected = subprocess.run(
        [sys.executable, str(ROOT / "experiments" / "collect.py")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for path in tmp_path.rglob("results.json"):
        run = json.loads(path.read_text())
        accuracy = f"{100 * run['metrics']['test/accuracy_last']:.2f}"
        (line,) = [
            line
            for line in collected.splitlines()
            if line.startswith(f"| blobs | {run['choices']['noise']} | 0.4 ")
            and f"| {run['choices']['model']} |" in line
        ]
        assert f"| 1 | {accuracy} |" in line


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_sweep_with_a_checkpoint(tmp_path: Path, number: int) -> None:
    ended = command(tmp_path, *GRID, strike=Strike(IN_THE_THIRD_RUN, number))
    assert ended.code == 128 + number
    (last,) = tmp_path.glob("outputs/blobs/asym-0.4/finetune/seed-0-*/last.ckpt")
    name = signal.Signals(number).name
    assert ended.err == (
        f"Stopped by {name}; the same command continues from {last.relative_to(tmp_path)}.\n"
    )
    assert states(tmp_path) == ["finished", "finished", "begun", "nothing"]
    checked_end(command(tmp_path, *GRID), tmp_path)


def test_a_run_that_diverges_does_not_stop_the_others(tmp_path: Path) -> None:
    rates = ("model=finetune", "noise=sym", "model.optimizer.lr=1e20,0.05")
    ended = command(tmp_path, *GRID, *rates)
    assert ended.code == 1
    lines = ended.out.splitlines()
    report = lines[lines.index(next(line for line in lines if line.startswith("failed"))) :]
    (failed, *reason, finished) = report
    assert failed.startswith("failed    outputs/blobs/sym-0.4/finetune/seed-0-")
    assert finished.startswith("finished  outputs/blobs/sym-0.4/finetune/seed-0-")
    assert "not finite at step 2" in " ".join(line.strip() for line in reason)
    assert max(map(len, report)) <= 80
    assert ended.err.startswith("failed: The loss was not finite")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("data", "before the first checkpoint; the same command starts it."),
        ("test", "the same command continues from outputs/"),
        ("export", "the same command continues from outputs/"),
    ],
)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_outside_training_is_one_sentence_too(
    tmp_path: Path, where: str, said: str, number: int
) -> None:
    request = ("dataset=blobs", "model=cross_entropy", "trainer.max_epochs=1")
    ended = command(tmp_path, *request, strike=Strike((where, 1), number))
    assert ended.code == 128 + number
    assert ended.err.startswith(f"Stopped by {signal.Signals(number).name}")
    assert said in ended.err
    assert ended.err.count("\n") == 1
    assert command(tmp_path, *request).code == 0


@pytest.mark.slow
def test_an_interrupt_from_the_keyboard_reaches_the_workers_too(tmp_path: Path) -> None:
    """A terminal sends Ctrl-C to all processes of a command, data loaders' workers included."""
    request = ("dataset=blobs", "dataset.num_workers=2", "trainer.max_epochs=400")
    with subprocess.Popen(
        [sys.executable, "-m", "mln_lightning.run", *request],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.lstrip().startswith("2/400"):
                break
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT
    assert re.fullmatch(r"Stopped by SIGINT; the same command continues from \S+last.ckpt.\n", err)
