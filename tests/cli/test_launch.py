"""Which processes a run asks for; the processes themselves are stand-ins."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from mln_lightning import launch
from mln_lightning.config import Job, hash_suffix, plan
from mln_lightning.errors import RunStopped, UserError
from mln_lightning.failure import Failure, ProcessFailedError
from mln_lightning.launch import (
    devices_of,
    environments_of,
    first_process,
    processes_to_start,
    started_by_others,
)
from mln_lightning.preflight import check

from .conftest import FakeJob

Call = Callable[..., int]
RUN = Path("digits/asym-0.4/metalabelnet/seed-0")
OUTSIDE = (
    *("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
    *(
        "LOCAL_WORLD_SIZE",
        "SLURM_PROCID",
        "SLURM_STEP_NUM_TASKS",
        "SLURM_JOB_NAME",
        "SLURM_NTASKS",
        "OMP_NUM_THREADS",
    ),
)


@pytest.fixture(autouse=True)
def _on_a_bare_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in OUTSIDE:
        monkeypatch.delenv(name, raising=False)


def environment(monkeypatch: pytest.MonkeyPatch, **variables: object) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, str(value))


TORCHRUN = {"LOCAL_RANK": 1, "RANK": 1, "WORLD_SIZE": 2}
SRUN = {"SLURM_PROCID": 0, "SLURM_STEP_NUM_TASKS": 2, "SLURM_JOB_NAME": "train"}
BATCH = {"SLURM_PROCID": 0, "SLURM_NTASKS": 2, "SLURM_JOB_NAME": "train"}  # sbatch without srun


@pytest.mark.parametrize(
    ("asked", "count"),
    [
        *(("1", 1), ("3", 3), ("'3'", 3), ("[0]", 1), ("[2,3]", 2), ("'2,3'", 2), ("'2,'", 1)),
        *(("auto", None), ("-1", None), ("'-1'", None)),
    ],
)
def test_devices(asked: str, count: int | None) -> None:
    assert devices_of(OmegaConf.from_dotlist([f"trainer.devices={asked}"])) == count


@pytest.mark.parametrize(
    ("line", "variables", "count"),
    [
        ("trainer.devices=1", {}, 0),
        ("trainer.strategy=ddp", {}, 0),
        ("trainer.devices=2", {}, 2),
        ("trainer.devices=auto trainer.accelerator=cpu", {}, 0),
        ("trainer.num_nodes=2", {}, 1),
        ("trainer.num_nodes=2 trainer.devices=4", {}, 4),
        ("trainer.devices=2", TORCHRUN, 0),
        ("trainer.devices=2", SRUN, 0),
        ("trainer.devices=2", BATCH, 2),
    ],
)
def test_processes_to_start(
    line: str, variables: dict[str, object], count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment(monkeypatch, **variables)
    assert processes_to_start(OmegaConf.from_dotlist(line.split())) == count


def test_the_first_process_by_every_launcher_s_names(monkeypatch: pytest.MonkeyPatch) -> None:
    assert first_process()
    for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID"):
        environment(monkeypatch, **{name: 0})
        assert first_process()
        environment(monkeypatch, **{name: 1})
        assert not first_process()
        environment(monkeypatch, **{name: 0})


def test_environments_on_one_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    environment(monkeypatch, NODE_RANK=3, MASTER_ADDR="elsewhere", SLURM_NTASKS=1, KEPT="yes")
    monkeypatch.setattr(launch, "_cores", lambda: 7)
    found = environments_of(3, nodes=1)
    assert list(found) == [0, 1, 2]
    assert [e["LOCAL_RANK"] for e in found.values()] == ["0", "1", "2"]
    for e in found.values():
        assert (e["WORLD_SIZE"], e["NODE_RANK"], e["MASTER_ADDR"]) == ("3", "0", "127.0.0.1")
        assert e["LOCAL_WORLD_SIZE"] == "3"
        assert (e["OMP_NUM_THREADS"], e["KEPT"]) == ("2", "yes")
        assert not {"RANK", "SLURM_NTASKS"} & e.keys()
    (port,) = {e["MASTER_PORT"] for e in found.values()}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", int(port)))


def test_environments_on_the_second_of_two_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    environment(monkeypatch, NODE_RANK=1, MASTER_ADDR="first", MASTER_PORT=29500)
    environment(monkeypatch, OMP_NUM_THREADS=5)
    found = environments_of(4, nodes=2)
    assert list(found) == [4, 5, 6, 7]
    last = found[7]
    assert (last["LOCAL_RANK"], last["NODE_RANK"], last["WORLD_SIZE"]) == ("3", "1", "8")
    assert (last["MASTER_ADDR"], last["MASTER_PORT"]) == ("first", "29500")
    assert last["OMP_NUM_THREADS"] == "5"


@pytest.mark.parametrize(
    ("line", "variables", "words"),
    [
        ("trainer.devices=3", TORCHRUN, ["2 processes were started", "asks for 3"]),
        ("", SRUN, ["2 processes were started", "asks for 1"]),
        ("trainer.devices=2", SRUN | {"SLURM_JOB_NAME": "bash"}, ["srun --job-name=train"]),
        ("trainer.num_nodes=2", {"NODE_RANK": 0, "MASTER_PORT": 1}, ["MASTER_ADDR is not set"]),
        (
            "trainer.num_nodes=2",
            {"NODE_RANK": 2, "MASTER_PORT": 1, "MASTER_ADDR": "first"},
            ["NODE_RANK=2", "0 to 1"],
        ),
    ],
)
def test_what_does_not_fit_the_processes_that_are_there(
    line: str, variables: dict[str, object], words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    environment(monkeypatch, **variables)
    with pytest.raises(UserError) as error:
        plan(line.split(), check=check)
    assert [word for word in words if word not in str(error.value)] == [], error.value


@pytest.mark.parametrize(
    ("line", "variables"),
    [
        ("trainer.devices=2", TORCHRUN),
        ("trainer.num_nodes=2", SRUN),
        ("trainer.devices=auto", SRUN),
        ("trainer.num_nodes=2", {"NODE_RANK": 1, "MASTER_PORT": 1, "MASTER_ADDR": "first"}),
    ],
)
def test_what_fits(
    line: str, variables: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    environment(monkeypatch, **variables)
    plan(line.split(), check=check)


def test_the_number_of_processes_changes_no_folder() -> None:
    line = "trainer.devices=2 trainer.num_nodes=2 trainer.strategy=ddp trainer.accelerator=cpu"
    assert hash_suffix(line.split()) == ""


# -- the command line -----------------------------------------------------------------------------


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> list[Exception | BaseException]:
    """What supervised processes will raise, one run after the other; without, they finish."""
    outcomes: list[Exception | BaseException] = []

    def supervise(
        command: list[str], environments: Mapping[int, Mapping[str, str]], task: Job
    ) -> None:
        assert os.path.basename(command[0]).startswith("python")
        assert list(environments) == [0, 1]
        if outcomes:
            raise outcomes.pop(0)
        (task.run_dir / "results.json").write_text("{}")

    monkeypatch.setattr(launch, "supervise", supervise)
    return outcomes


def launched(folder: Path) -> None:
    launch.launch(Job(OmegaConf.create({}), folder, {}, []), 2)


def test_what_follows_a_killed_process(processes: list[Exception], tmp_path: Path) -> None:
    killed = ProcessFailedError(Failure("Rank 1 was killed.", "last words", 1))
    processes += [killed, killed]
    with pytest.raises(ProcessFailedError) as caught:
        launched(tmp_path)
    assert caught.value.failure == Failure(
        "Rank 1 was killed. There is no checkpoint yet; the same command starts anew.",
        "last words",
        1,
    )
    (tmp_path / "last.ckpt").touch()
    with pytest.raises(ProcessFailedError, match=r"killed. The same .* from \S+/last\.ckpt\.$"):
        launched(tmp_path)


@pytest.mark.parametrize("sentence", ["No such data.", None])
def test_what_a_process_says_itself_is_left_alone(
    processes: list[Exception], tmp_path: Path, sentence: str | None
) -> None:
    failure = Failure(sentence, "Traceback", 1 if sentence is None else 2)
    processes.append(ProcessFailedError(failure))
    with pytest.raises(ProcessFailedError) as caught:
        launched(tmp_path)
    assert caught.value.failure == failure


def test_stopped_processes_tell_the_newest_checkpoint(
    processes: list[BaseException], tmp_path: Path
) -> None:
    processes += [RunStopped(signal.SIGTERM), RunStopped(signal.SIGTERM)]
    with pytest.raises(RunStopped, match="Stopped by SIGTERM before the first checkpoint"):
        launched(tmp_path)
    (tmp_path / "last.ckpt").touch()
    with pytest.raises(RunStopped, match=r"continues from \S+/last\.ckpt"):
        launched(tmp_path)


def test_a_process_that_was_killed(
    mln: Call,
    job: FakeJob,
    processes: list[Exception],
    outputs: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (outputs / RUN).mkdir(parents=True)
    (outputs / RUN / "last.ckpt").touch()
    processes.append(ProcessFailedError(Failure("Rank 1 was killed.", "last words\n", 1)))
    assert mln("noise=asym", "trainer.devices=2") == 1
    said = f"Rank 1 was killed. The same command continues from outputs/{RUN}/last.ckpt.\n"
    assert capsys.readouterr().err == said
    assert (outputs / RUN / "error.txt").read_text() == f"last words\n\n{said}"
    assert job.calls == [], "this process trains nothing itself"


def test_a_sweep_goes_on_after_a_process_with_a_bug(
    mln: Call, job: FakeJob, processes: list[Exception], capsys: pytest.CaptureFixture[str]
) -> None:
    processes.append(ProcessFailedError(Failure(None, "Traceback\nZeroDivisionError: 1\n", 1)))
    assert mln("-m", "noise=asym", "trainer.devices=2", "seed=0,1") == 1
    said = capsys.readouterr()
    assert said.err == "failed: ZeroDivisionError: 1\n"
    assert said.out.count("\nfinished  ") == said.out.count("\nfailed    ") == 1
    assert job.calls == []


def test_another_process_of_a_launcher_is_silent_and_runs_what_the_first_one_runs(
    mln: Call,
    job: FakeJob,
    outputs: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for seed in (0, 1):
        folder = (outputs / RUN).with_name(f"seed-{seed}")
        folder.mkdir(parents=True)
        (folder / "last.ckpt").touch()
    (outputs / RUN / "results.json").touch()
    environment(monkeypatch, **TORCHRUN)
    assert started_by_others()
    assert mln("-m", "noise=asym", "trainer.devices=2", "seed=0,1") == 0
    assert [run_dir.name for run_dir, *_ in job.calls] == ["seed-1"]
    assert capsys.readouterr() == ("", "")
