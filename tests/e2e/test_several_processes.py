"""Runs on two real processes, killed, stopped and continued on another number of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest
import torch

from mln_lightning.launch import environments_of
from processes import Strike, command

SRC = Path(__file__).parents[2] / "src"
EPOCHS = 3
OPTIONS = (
    *("noise=asym", "trainer.accelerator=cpu", "precision=64-true", f"trainer.max_epochs={EPOCHS}"),
    *("model.warmup_epochs=1", "model.network.width=4", "callbacks.checkpoint.every_n_steps=3"),
)
RUN = ("-m", "mln_lightning.run", *OPTIONS)
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")


def start(folder: Path, *arguments: str, **variables: str) -> subprocess.Popen[str]:
    """A Python process in ``folder``, with one thread for each of its children."""
    folder.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(SRC), "OMP_NUM_THREADS": "1", **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def read_until(word: str, stream: IO[str] | None) -> None:
    assert stream is not None
    assert any(word in line for line in stream), f"no line says {word}"


def children(process: subprocess.Popen[str]) -> list[int]:
    text = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [int(pid) for pid in text.split()]


def end(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit code and what was still said."""
    out, err = process.communicate(timeout=240)
    return process.returncode, out, err


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie, whom its new parent is slow to bury, does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def folder_of(where: Path) -> Path:
    (path,) = where.rglob("last.ckpt")
    return path.parent


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run on one process, never interrupted."""
    where = tmp_path_factory.mktemp("whole")
    assert command(where, *OPTIONS).code == 0
    return folder_of(where)


def assert_same(folder: Path, whole: Path) -> None:
    """Two runs differ by no more than rounding, and left the same files."""
    left = {path.name for path in folder.iterdir()} - {"error.txt"}
    assert left == {path.name for path in whole.iterdir()}
    state, expected = (torch.load(f / "last.ckpt", weights_only=True) for f in (folder, whole))
    assert state["global_step"] == expected["global_step"]
    torch.testing.assert_close(state["state_dict"], expected["state_dict"], rtol=1e-9, atol=1e-12)
    found, wanted = (json.loads((f / "results.json").read_text()) for f in (folder, whole))
    assert (found["processes"], wanted["processes"]) == (2, 1)
    assert found["metrics"] == pytest.approx(wanted["metrics"], rel=1e-6)
    for key in ("epochs", "noise", "labels"):
        assert found[key] == wanted[key]


def assert_finished(process: subprocess.Popen[str]) -> None:
    """The rest of a run, printed once."""
    code, out, err = end(process)
    assert (code, err) == (0, "")
    assert out.startswith("Resuming from outputs/")
    assert out.count(f" {EPOCHS}/{EPOCHS} ") == out.count("Everything is in") == 1


@pytest.mark.slow
def test_a_killed_process_ends_the_run_which_then_goes_on(whole: Path, tmp_path: Path) -> None:
    with start(tmp_path, *RUN, "trainer.devices=2") as process:
        read_until(f"1/{EPOCHS}", process.stdout)
        pids = children(process)
        assert len(pids) == 2
        os.kill(pids[1], signal.SIGKILL)
        code, _, err = end(process)
    folder = folder_of(tmp_path)
    assert code == 1
    assert err.startswith("The process of rank 1 was killed by SIGKILL")
    assert err.endswith(f"continues from {folder.relative_to(tmp_path)}/last.ckpt.\n")
    assert err.count("\n") == 1
    assert (folder / "error.txt").read_text().endswith(err)
    assert not any(map(alive, pids))
    assert not (folder / "results.json").exists()
    with start(tmp_path, *RUN, "trainer.devices=2", "trainer.strategy=ddp") as process:
        assert_finished(process)
    assert_same(folder, whole)


@pytest.mark.slow
def test_stopped_on_two_machines_then_on_one_process_then_finished_by_torchrun(
    whole: Path, tmp_path: Path
) -> None:
    """The machines are two command lines here, of one process each."""
    place = environments_of(1, nodes=1)[0]
    address = {name: place[name] for name in ("MASTER_ADDR", "MASTER_PORT")}
    nodes = [
        start(tmp_path, *RUN, "trainer.num_nodes=2", NODE_RANK=rank, **address) for rank in "01"
    ]
    with nodes[0], nodes[1]:
        read_until(f"1/{EPOCHS}", nodes[0].stdout)
        nodes[0].send_signal(signal.SIGTERM)
        first, second = map(end, nodes)
    folder = folder_of(tmp_path)
    last = folder.relative_to(tmp_path) / "last.ckpt"
    sentence = f"Stopped by SIGTERM; the same command continues from {last}.\n"
    assert (first[0], first[2]) == (second[0], second[2]) == (128 + signal.SIGTERM, sentence)
    assert second[1] == ""

    assert command(tmp_path, *OPTIONS, strike=Strike(("step", 4), signal.SIGTERM)).code == 143
    with start(tmp_path, *TORCHRUN, *RUN, "trainer.devices=2") as process:
        assert_finished(process)
    assert_same(folder, whole)
