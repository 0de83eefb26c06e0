from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import pytest
from omegaconf import DictConfig


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
