"""One process a run folder, however runs are started."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from mln_lightning.errors import UserError
from mln_lightning.files import shown


class InUseError(UserError):
    """Another process trains in the run folder."""


@contextmanager
def claimed(run_dir: Path, *, patience: float) -> Iterator[None]:
    """Keep other processes out of a run folder, on this machine and on a disk shared with others.

    The operating system gives the claim back when the process ends, however it ends. The lock lies
    beside the folder, which may be moved, and is removed again.

    Args:
        run_dir: need not exist.
        patience: seconds to wait for another process to end; negative waits for ever.

    Raises:
        InUseError: another process still trains there.
    """
    run_dir.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(run_dir.with_name(f".{run_dir.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"Waiting for the process that trains in {shown(run_dir)}", flush=True)
        _wait(lock, run_dir, patience)
    try:
        yield
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)  # while held: who waits notices and makes anew
        lock.release()


def _wait(lock: FileLock, run_dir: Path, patience: float) -> None:
    try:
        lock.acquire(timeout=patience)
    except Timeout:
        raise InUseError(
            f"another process trains in {shown(run_dir)}; wait for it to end, or stop it"
        ) from None
