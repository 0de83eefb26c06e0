"""Sweeps: all combinations first, finished ones skipped, failures recorded, stops honoured."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from mln_lightning.errors import RunStopped

from .conftest import FakeJob
from .test_run import finished, raises

Call = Callable[..., int]
GRID = ("-m", "noise=sym,asym", "seed=0,1")


def run_dir(outputs: Path, noise: str, seed: int) -> Path:
    return outputs / f"digits/{noise}-0.4/metalabelnet/seed-{seed}"


def test_grid_skips_resumes_and_does(
    mln: Call, job: FakeJob, outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finished(run_dir(outputs, "sym", 0))
    half = run_dir(outputs, "asym", 1)
    half.mkdir(parents=True)
    (half / "last.ckpt").write_text("half")
    assert mln(*GRID) == 0
    out = capsys.readouterr().out
    assert "4 runs: 1 finished, 1 to resume, 2 to do" in out
    assert "\x1b" not in out
    assert [call[0] for call in job.calls] == [
        run_dir(outputs, "sym", 1),
        run_dir(outputs, "asym", 0),
        half,
    ]
    assert run_dir(outputs, "sym", 0).joinpath("results.json").read_text() == "old"

    job.calls.clear()
    assert mln(*GRID) == 0
    assert "4 runs: 4 finished, 0 to resume, 0 to do" in capsys.readouterr().out
    assert job.calls == []


def test_overwrite_repeats_finished_runs(mln: Call, job: FakeJob, outputs: Path) -> None:
    folder = finished(run_dir(outputs, "sym", 0))
    assert mln(*GRID, "overwrite=true") == 0
    assert len(job.calls) == 4
    assert (folder / "results.json").read_text() == "{}"


def test_one_bad_combination_stops_all(
    mln: Call, job: FakeJob, outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mln("-m", "noise=sym,asym", "rate=0.2,2") == 2
    assert "rate=2" in capsys.readouterr().err
    assert job.calls == []
    assert not outputs.exists()


def test_failed_run_is_recorded_and_the_next_runs(
    mln: Call, job: FakeJob, outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job.actions["/sym-0.4/metalabelnet/seed-0"] = raises(ZeroDivisionError("a bug"))
    job.actions["/asym-0.4/metalabelnet/seed-0"] = raises(ValueError("bad value"))
    assert mln(*GRID) == 1
    ran = capsys.readouterr()
    assert len(job.calls) == 4
    assert "Traceback" in (run_dir(outputs, "asym", 0) / "error.txt").read_text()
    folder = "outputs/digits/asym-0.4/metalabelnet/seed-"
    assert ran.out.endswith(f"failed    {folder}0\n          bad value\nfinished  {folder}1\n")
    assert max(map(len, ran.out.splitlines())) <= 80
    job.actions.clear()
    job.calls.clear()
    assert mln(*GRID) == 0
    assert [call[0] for call in job.calls] == [
        run_dir(outputs, "sym", 0),
        run_dir(outputs, "asym", 0),
    ]
    assert not (run_dir(outputs, "asym", 0) / "error.txt").exists()


def test_a_signal_stops_the_whole_sweep(
    mln: Call, job: FakeJob, outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stopped = RunStopped(signal.SIGINT, Path("last.ckpt"))
    job.actions["/sym-0.4/metalabelnet/seed-1"] = raises(stopped)
    assert mln(*GRID) == 130
    assert len(job.calls) == 2
    assert capsys.readouterr().err.count("\n") == 1
    job.actions.clear()
    assert mln(*GRID) == 0
    assert len(job.calls) == 2 + 3


def test_two_runs_in_one_folder(
    mln: Call, job: FakeJob, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mln("-m", "data_dir=a,b") == 2
    assert "share the folder" in capsys.readouterr().err
    assert job.calls == []


def test_sweep_asked_for_by_an_experiment_file(
    mln: Call, job: FakeJob, outputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`experiment=grid` with a grid of its own needs no -m."""
    path = tmp_path / "more" / "experiment" / "grid.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(
        "# @package _global_\nhydra:\n  mode: MULTIRUN\n  sweeper: {params: {seed: '0,1,2'}}\n"
    )
    assert mln(f"hydra.searchpath=[file://{tmp_path / 'more'}]", "experiment=grid") == 0
    assert "3 runs" in capsys.readouterr().out
    assert len(job.calls) == 3


def test_the_flag_may_stand_anywhere(mln: Call, job: FakeJob) -> None:
    assert mln("noise=asym", "-m", "seed=0,1") == 0
    assert len(job.calls) == 2
