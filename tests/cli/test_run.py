"""One run: refused, resumed, replaced, failed, stopped; the job itself is a stand-in."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.errors import InstantiationException
from hydra.utils import instantiate

from mln_lightning import folders
from mln_lightning.errors import RunStopped, UserError
from mln_lightning.failure import sentence

from .conftest import FakeJob

Call = Callable[..., int]
RUN = Path("digits/asym-0.4/metalabelnet/seed-0")
SRC = Path(__file__).parents[2] / "src"


def finished(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "results.json").write_text("old")
    (folder / "last.ckpt").write_text("old")
    return folder


def raises(error: BaseException) -> Callable[[Path], None]:
    def action(run_dir: Path) -> None:
        raise error

    return action


def test_run_receives_what_was_asked(mln: Call, job: FakeJob, outputs: Path) -> None:
    assert mln("noise=asym", "rate=0.4") == 0
    ((run_dir, choices, overrides),) = job.calls
    assert run_dir == outputs / RUN
    assert choices["noise"] == "asym"
    assert choices["model/network"] == "small_cnn"
    assert overrides == ["noise=asym", "rate=0.4"]
    assert sorted(path.name for path in run_dir.iterdir()) == ["last.ckpt", "results.json"]


def test_finished_run_is_refused(
    mln: Call, job: FakeJob, outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = finished(outputs / RUN)
    assert mln("noise=asym") == 2
    assert "overwrite=true" in capsys.readouterr().err
    assert job.calls == []
    assert (folder / "results.json").read_text() == "old"


def test_overwrite_replaces_everything(mln: Call, job: FakeJob, outputs: Path) -> None:
    folder = finished(outputs / RUN)
    (folder / "stale.csv").touch()
    job.actions["seed-0"] = lambda run_dir: (run_dir / "fresh").write_text(
        str([path.name for path in run_dir.iterdir()])
    )
    assert mln("noise=asym", "overwrite=true") == 0
    assert (folder / "fresh").read_text() == "[]"
    assert (folder / "results.json").read_text() == "{}"
    assert [path.name for path in folder.parent.iterdir()] == ["seed-0"]


@pytest.mark.parametrize("error", [FileNotFoundError("no data"), RuntimeError("bug")])
def test_overwrite_keeps_the_old_run_if_the_new_one_never_trained(
    mln: Call, job: FakeJob, outputs: Path, error: Exception
) -> None:
    folder = finished(outputs / RUN)
    job.actions["seed-0"] = raises(error)
    assert mln("noise=asym", "overwrite=true") != 0
    assert (folder / "results.json").read_text() == "old"
    assert (folder / "last.ckpt").read_text() == "old"
    assert [path.name for path in folder.parent.iterdir()] == ["seed-0"]


def test_overwrite_after_a_kill_resumes_and_clears_up(
    mln: Call, job: FakeJob, outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGKILL while the old run was set aside: nothing could be cleaned up then."""
    folder = finished(outputs / RUN)
    folder.rename(folder.with_name(".seed-0.replaced"))
    folder.mkdir()
    (folder / "last.ckpt").write_text("half")
    assert mln("noise=asym", "overwrite=true") == 0
    assert "Resuming from outputs/digits/asym-0.4" in capsys.readouterr().out
    assert [path.name for path in folder.parent.iterdir()] == ["seed-0"]


def test_unfinished_run_resumes(
    mln: Call, job: FakeJob, outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = outputs / RUN
    folder.mkdir(parents=True)
    (folder / "last.ckpt").write_text("half")
    seen: list[str] = []
    job.actions["seed-0"] = lambda run_dir: seen.append((run_dir / "last.ckpt").read_text())
    assert mln("noise=asym") == 0
    assert seen == ["half"]
    assert "Resuming" in capsys.readouterr().out


@pytest.mark.parametrize("asked", ["last", "nowhere.ckpt"])
def test_missing_checkpoint(
    mln: Call, job: FakeJob, asked: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mln("noise=asym", f"ckpt_path={asked}") == 2
    assert f"ckpt_path={asked}" in capsys.readouterr().err
    assert job.calls == []


def test_checkpoint_in_the_run_to_be_replaced(
    mln: Call, job: FakeJob, outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finished(outputs / RUN)
    assert mln("noise=asym", "ckpt_path=last", "overwrite=true") == 2
    assert "would replace" in capsys.readouterr().err
    assert (outputs / RUN / "last.ckpt").read_text() == "old"


def test_checkpoint_elsewhere_is_passed_on(mln: Call, job: FakeJob, tmp_path: Path) -> None:
    (tmp_path / "some.ckpt").touch()
    assert mln("noise=asym", "ckpt_path=some.ckpt") == 0
    assert len(job.calls) == 1


def test_something_in_the_way(
    mln: Call, job: FakeJob, outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs.write_text("a file")
    assert mln("noise=asym") == 2
    assert "Not a directory" in capsys.readouterr().err
    assert job.calls == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_no_permission(mln: Call, outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outputs.mkdir(mode=0o500)
    assert mln("noise=asym") == 2
    assert "Permission denied" in capsys.readouterr().err


@pytest.mark.parametrize("code", [errno.EACCES, errno.ENOSPC, errno.EROFS])
def test_unwritable_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def write_bytes(path: Path, data: bytes) -> int:
        raise OSError(code, os.strerror(code), str(path))

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    with pytest.raises(UserError, match=os.strerror(code)):
        folders.check_writable(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []


def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = folders.shutil.disk_usage(tmp_path)._replace(free=2**20)
    monkeypatch.setattr(folders.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UserError, match="is full: 1 MiB"):
        folders.check_writable(tmp_path)


def test_bad_input_found_by_the_job(
    mln: Call, job: FakeJob, outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job.actions["seed-0"] = raises(FileNotFoundError("no cifar-10-batches-py in data/"))
    assert mln("noise=asym") == 2
    assert capsys.readouterr().err == "no cifar-10-batches-py in data/\n"
    assert "FileNotFoundError" in (outputs / RUN / "error.txt").read_text()
    job.actions.clear()
    assert mln("noise=asym") == 0
    assert not (outputs / RUN / "error.txt").exists()


def test_unexpected_error_keeps_its_traceback(
    mln: Call, job: FakeJob, capsys: pytest.CaptureFixture[str]
) -> None:
    job.actions["seed-0"] = raises(ZeroDivisionError("a bug"))
    assert mln("noise=asym") == 1
    err = capsys.readouterr().err
    assert err.startswith("Traceback")
    assert "ZeroDivisionError: a bug" in err
    assert "in action" in err


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_stopped(mln: Call, job: FakeJob, capsys: pytest.CaptureFixture[str], signum: int) -> None:
    job.actions["seed-0"] = raises(RunStopped(signum, Path("x/last.ckpt")))
    assert mln("noise=asym") == 128 + signum
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "x/last.ckpt" in err


def test_interrupted_before_the_job_could_listen(
    mln: Call, job: FakeJob, capsys: pytest.CaptureFixture[str]
) -> None:
    job.actions["seed-0"] = raises(KeyboardInterrupt())
    assert mln("noise=asym") == 130
    assert "Traceback" not in capsys.readouterr().err


def test_further_processes_leave_the_folder_alone(
    mln: Call, job: FakeJob, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning starts the same command once more for each further device."""
    folder = finished(outputs / RUN)
    (folder / "kept").touch()
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert mln("noise=asym", "overwrite=true") == 0
    assert (folder / "kept").exists()


def wrapped(target: str, **arguments: object) -> Exception:
    with pytest.raises(InstantiationException) as error:
        instantiate({"outer": {"_target_": target, **arguments}})
    return error.value


def test_sentences() -> None:
    assert sentence(wrapped("fractions.Fraction", numerator="x")) == (
        "Invalid literal for Fraction: 'x'"
    )
    text = str(sentence(wrapped("datetime.timedelta", hors=1)))
    assert text.startswith("outer: ")
    assert "hors" in text
    full = OSError(errno.ENOSPC, "No space left on device", "a/last.ckpt")
    assert sentence(full) == "cannot use a/last.ckpt: No space left on device"
    assert sentence(ValueError("two\n  lines")) == "two lines"
    assert sentence(TypeError("a bug")) is None
    assert sentence(RuntimeError("a bug")) is None


def subprocess_mln(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "mln_lightning.run", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(SRC)},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["noise=asim"], "'asym'"),
        (["-m", "rate=0.2,1.5", "seed=0,1"], "[0, 1)"),
        (["ckpt_path=no.ckpt"], "no.ckpt"),
    ],
)
def test_bad_input_never_imports_torch(tmp_path: Path, arguments: list[str], word: str) -> None:
    ended = subprocess_mln(tmp_path, *arguments)
    lines = ended.stderr.splitlines()
    imported = {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time")}
    said = [line for line in lines if not line.startswith("import time")]
    assert ended.returncode == 2
    assert "hydra" in imported
    assert not {"torch", "lightning", "sklearn", "numpy"} & imported
    assert len(said) == 1
    assert word in said[0]
    assert ended.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_importing_the_package_is_light() -> None:
    code = "import sys, mln_lightning; print(sorted(m.partition('.')[0] for m in sys.modules))"
    out = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(SRC)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "'mln_lightning'" in out
    for heavy in ("torch", "lightning", "hydra", "omegaconf", "numpy", "rich"):
        assert f"'{heavy}'" not in out


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--help"], "noise: "),
        (["--cfg", "job", "--resolve", "rate=0.3"], "rate: 0.3"),
        (["--version"], "mln_lightning 0."),
    ],
)
def test_flags_that_only_show(
    mln: Call,
    job: FakeJob,
    outputs: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    word: str,
) -> None:
    assert mln(*arguments) == 0
    assert word in capsys.readouterr().out
    assert job.calls == []
    assert not outputs.exists()


def test_info_shows(tmp_path: Path) -> None:
    """In a process of its own: Hydra sets up logging for it."""
    ended = subprocess_mln(tmp_path, "--info", "defaults")
    assert ended.returncode == 0
    assert "model/network/small_cnn" in ended.stdout
    assert list(tmp_path.iterdir()) == []


def test_showing_a_bad_configuration_fails_too(
    mln: Call, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mln("--cfg", "job", "rat=0.3") == 2
    assert "did you mean 'rate'" in capsys.readouterr().err
