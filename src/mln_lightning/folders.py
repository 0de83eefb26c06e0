"""Run folders: what state one is in, whether it can be written, and how one is replaced.

The folder is the only record of a run's state, so it survives kills and other machines:
`results.json` (written last) means finished, `last.ckpt` alone means it can be resumed, `error.txt`
holds the traceback of the last attempt if that failed.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from mln_lightning.config import Job
from mln_lightning.errors import UserError
from mln_lightning.files import shown

RESULTS = "results.json"
LAST_CHECKPOINT = "last.ckpt"
ERROR = "error.txt"
_SPACE_NEEDED = 2**26  # bytes; checkpoints of the smallest runs fit

State = Literal["finished", "to resume", "to do"]


def state(run_dir: Path) -> State:
    """What a run with this folder would find."""
    if (run_dir / RESULTS).exists():
        return "finished"
    return "to resume" if (run_dir / LAST_CHECKPOINT).exists() else "to do"


def will_run(job: Job) -> bool:
    """Whether a sweep runs this job: not if it is finished and need not be replaced."""
    return bool(job.cfg.overwrite) or state(job.run_dir) != "finished"


def refuse_finished(job: Job) -> None:
    """A single run never replaces results unasked.

    Raises:
        UserError: the folder holds a finished run and `overwrite` is false.
    """
    if not will_run(job):
        raise UserError(
            f"{shown(job.run_dir)} holds a finished run already; overwrite=true replaces it, "
            "another seed or setting gets its own folder"
        )


def check_checkpoint(job: Job) -> None:
    """The checkpoint asked for exists and is not about to be removed.

    Raises:
        UserError: it does not, or it lies in the finished run that `overwrite` would replace.
    """
    asked = job.cfg.ckpt_path
    if asked is None:
        return
    path = job.run_dir / LAST_CHECKPOINT if asked == "last" else Path(asked)
    if not path.is_file():
        raise UserError(
            f"ckpt_path={asked}: there is no checkpoint {shown(path)}; leave ckpt_path out to "
            "start anew"
        )
    if state(job.run_dir) == "finished" and path.resolve().is_relative_to(job.run_dir.resolve()):
        raise UserError(
            f"ckpt_path={asked} lies in the finished run that overwrite=true would replace; copy "
            "the checkpoint elsewhere, or leave ckpt_path out"
        )


def check_writable(run_dir: Path) -> None:
    """Write a mebibyte where the run would write, and remove it again.

    Raises:
        UserError: no permission, something else in the way, or too little space.
    """
    folder = run_dir
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.TemporaryDirectory(prefix=".write-test-", dir=folder) as probe:
            (Path(probe) / "bytes").write_bytes(bytes(2**20))
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise UserError(
            f"cannot write to the output folder {shown(run_dir)}: {folder}: {error.strerror}; "
            "choose another with hydra.sweep.dir=<folder>"
        ) from error
    if free < _SPACE_NEEDED:
        raise UserError(
            f"the disk of {shown(run_dir)} is full: {free >> 20} MiB are free and a run needs "
            f"{_SPACE_NEEDED >> 20}; make room, or choose another with hydra.sweep.dir=<folder>"
        )


@contextmanager
def replacing(run_dir: Path) -> Iterator[None]:
    """Set a finished run aside while its successor runs in the same folder.

    The old run comes back if the new one fails before its first checkpoint (a missing data set,
    say), and is removed otherwise. A kill in between leaves it in a hidden folder beside, which the
    next attempt treats the same way.
    """
    aside = run_dir.with_name(f".{run_dir.name}.replaced")
    if state(run_dir) == "finished":
        shutil.rmtree(aside, ignore_errors=True)
        run_dir.rename(aside)
    run_dir.mkdir(parents=True, exist_ok=True)
    with suppress(FileNotFoundError):
        (run_dir / ERROR).unlink()
    try:
        yield
    except BaseException:
        if aside.exists() and state(run_dir) == "to do":
            shutil.rmtree(run_dir)
            aside.rename(run_dir)
        raise
    finally:
        if state(run_dir) != "to do":
            shutil.rmtree(aside, ignore_errors=True)
