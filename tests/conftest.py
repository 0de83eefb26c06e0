import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread_and_deterministic():
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)


@pytest.fixture
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where runs go: the working folder is a temporary one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "outputs"


@pytest.fixture
def mln(monkeypatch: pytest.MonkeyPatch, outputs: Path) -> Callable[..., int]:
    """Call the command line in this process; returns its exit code."""
    from mln_lightning import run

    def call(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["mln", *arguments])
        try:
            run.main()
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    return call
