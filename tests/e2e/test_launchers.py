"""Sweeps whose runs have processes of their own, and a search, with real runs."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from processes import command

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
BLOBS = ("dataset=blobs", "model=finetune", "model.warmup_epochs=1", "trainer.accelerator=cpu")


def start(where: Path, *arguments: str) -> subprocess.Popen[str]:
    """`mln <arguments>` as a shell would start it: in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "mln_lightning.run", *arguments],
        cwd=where,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=240)
    return process.returncode, out, err


def test_side_by_side_stopped_and_continued(tmp_path: Path) -> None:
    sweep = ("-m", *BLOBS, "seed=0,1", "trainer.max_epochs=20", "hydra/launcher=joblib")
    process = start(tmp_path, *sweep)
    deadline = time.monotonic() + 120
    while len(list(tmp_path.rglob("last.ckpt"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    code, out, err = ended(process)
    assert code == 128 + signal.SIGINT
    assert err == "Stopped by SIGINT; the same command continues the sweep.\n"
    assert out.startswith("2 runs: 0 finished, 0 to resume, 2 to do\n")
    assert not list(tmp_path.rglob("results.json"))

    code, out, err = ended(start(tmp_path, *sweep))
    assert (code, err) == (0, "")
    first, hint, *one_by_one, empty = out.splitlines()[:-2]
    assert first == "2 runs: 0 finished, 2 to resume, 0 to do"
    assert hint == "What a run prints goes to its folder, output.txt."
    folders = sorted(path.parent for path in tmp_path.rglob("results.json"))
    names = [str(folder.relative_to(tmp_path)) for folder in folders]
    assert sorted(one_by_one) == [f"finished: {name}" for name in names]
    assert empty == ""
    assert out.splitlines()[-2:] == [f"finished  {name}" for name in names]
    for folder in folders:
        printed = (folder / "output.txt").read_text()
        assert "20/20" in printed
        assert "test accuracy, last epoch" in printed

    (tmp_path / "alone").mkdir()
    one = ("-m", *BLOBS, "seed=1", "trainer.max_epochs=20")  # one after the other, undisturbed
    assert command(tmp_path / "alone", *one).code == 0
    (alone,) = (tmp_path / "alone").rglob("results.json")
    weights, same = (
        torch.load(folder / "last.ckpt", weights_only=True)["state_dict"]
        for folder in (folders[1], alone.parent)
    )
    assert weights.keys() == same.keys()
    assert all(torch.equal(weights[name], same[name]) for name in weights)
    metrics = [json.loads((f / "results.json").read_text())["metrics"] for f in folders]
    assert metrics[1] == json.loads(alone.read_text())["metrics"]
    assert metrics[0] != metrics[1]


def test_submitit_on_this_machine(tmp_path: Path) -> None:
    sweep = ("-m", *BLOBS, "model.optimizer.lr=0.05,1e20", "trainer.max_epochs=2")
    sweep = (*sweep, "hydra/launcher=submitit_local")
    for line in (
        "2 runs: 0 finished, 0 to resume, 2 to do",
        "2 runs: 1 finished, 0 to resume, 1 to do",
    ):
        code, out, err = ended(start(tmp_path, *sweep))
        assert (code, err) == (1, "")
        assert out.startswith(f"{line}\n")
        assert "\nfailed    outputs/blobs/sym-0.4/finetune/seed-0-" in out
        assert "not finite at step 2" in " ".join(out.split())
        (results,) = tmp_path.rglob("results.json")
    assert "2/2" in (results.parent / "output.txt").read_text()
    assert len(list((tmp_path / "outputs" / ".submitit").glob("*/*_log.out"))) == 4


def test_search(tmp_path: Path) -> None:
    search = ("-m", *BLOBS, "hydra/sweeper=optuna", "trainer.max_epochs=3", "model.warmup_epochs=1")
    search = (*search, "model.optimizer.lr=tag(log,interval(0.001,0.2))")
    two = command(tmp_path, *search, "hydra.sweeper.n_trials=2")
    assert (two.code, two.err) == (0, "")
    before = {path: path.read_bytes() for path in tmp_path.rglob("results.json")}
    assert len(before) == 2
    three = command(tmp_path, *search, "hydra.sweeper.n_trials=3")
    assert three.code == 0
    found = list(tmp_path.rglob("results.json"))
    assert len(found) == 3
    assert all(path.read_bytes() == known for path, known in before.items())

    scores = {}
    for path in found:
        with (path.parent / "metrics.csv").open() as file:
            by_epoch = [float(row["val/accuracy"]) for row in csv.DictReader(file)]
        results = json.loads(path.read_text())
        assert results["metrics"]["val/accuracy_selected"] == max(by_epoch[1:])  # after warm-up
        assert results["epochs"]["selected"] > 1
        scores[path.parent] = max(by_epoch[1:])
    saved = OmegaConf.load(tmp_path / "outputs" / "optimization_results.yaml")
    assert saved.best_value == max(scores.values())
    *_, best, folder, overrides = three.out.splitlines()
    assert best == (
        "Best of 3 runs by validation accuracy (observed labels): "
        f"{100 * max(scores.values()):.2f} %"
    )
    assert scores[tmp_path / folder.strip()] == max(scores.values())
    assert f"model.optimizer.lr={saved.best_params['model.optimizer.lr']}" in overrides.split()
