from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import pytest
from omegaconf import DictConfig

from mln_lightning import run as cli

STANDIN = Path(__file__).parent / "standin"
# Config files of the other parts, read only where conf/ does not have them.
CONFIG_DIR = STANDIN if STANDIN.is_dir() else None


class FakeJob:
    """Stands where the heavy `mln_lightning.job` would: records calls, leaves a run folder."""

    def __init__(self) -> None:
        self.calls: list[tuple[Path, dict[str, str], list[str]]] = []
        self.actions: dict[str, Callable[[Path], None]] = {}

    def run_job(
        self, cfg: DictConfig, run_dir: Path, *, choices: dict[str, str], overrides: Sequence[str]
    ) -> None:
        self.calls.append((run_dir, choices, list(overrides)))
        for part, action in self.actions.items():
            if part in str(run_dir):
                action(run_dir)
        (run_dir / "last.ckpt").write_text("new")
        (run_dir / "results.json").write_text("{}")


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> FakeJob:
    fake = FakeJob()
    module = ModuleType("mln_lightning.job")
    vars(module)["run_job"] = fake.run_job
    monkeypatch.setitem(sys.modules, "mln_lightning.job", module)
    return fake


@pytest.fixture
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "outputs"


@pytest.fixture
def mln(monkeypatch: pytest.MonkeyPatch, outputs: Path) -> Callable[..., int]:
    """Call the command line in this process; returns its exit code."""

    def call(*arguments: str) -> int:
        extra = ["--config-dir", str(CONFIG_DIR)] if CONFIG_DIR else []
        monkeypatch.setattr(sys, "argv", ["mln", *extra, *arguments])
        try:
            cli.main()
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    return call
