"""One process a run folder."""

from __future__ import annotations

import multiprocessing
import time
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from mln_lightning.claim import InUseError, claimed

FORK = multiprocessing.get_context("fork")


def hold(run_dir: Path, held: Event, end: Event) -> None:
    with claimed(run_dir, patience=0):
        held.set()
        end.wait(30)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "outputs" / "seed-0"


def test_a_second_process_is_refused_and_a_third_waits(folder: Path) -> None:
    held, end = FORK.Event(), FORK.Event()
    process = FORK.Process(target=hold, args=(folder, held, end))
    process.start()
    assert held.wait(30)
    with (
        pytest.raises(InUseError, match=r"another process trains in .*seed-0; wait"),
        claimed(folder, patience=0.1),
    ):
        pytest.fail("entered")
    end.set()
    with claimed(folder, patience=-1):
        assert [path.name for path in folder.parent.iterdir()] == [".seed-0.lock"]
    process.join()
    assert list(folder.parent.iterdir()) == []


def test_a_killed_process_holds_nothing(folder: Path) -> None:
    held, end = FORK.Event(), FORK.Event()
    process = FORK.Process(target=hold, args=(folder, held, end))
    process.start()
    assert held.wait(30)
    process.kill()
    process.join()
    with claimed(folder, patience=0):
        pass
    assert list(folder.parent.iterdir()) == []


def count(run_dir: Path, file: Path, times: int) -> None:
    for _ in range(times):
        with claimed(run_dir, patience=-1):
            number = int(file.read_text())
            time.sleep(0.001)
            file.write_text(str(number + 1))


def test_never_two_at_a_time(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "count"
    file.write_text("0")
    processes = [FORK.Process(target=count, args=(folder, file, 10)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert file.read_text() == "30"
