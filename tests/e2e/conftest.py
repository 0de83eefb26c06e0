from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from processes import Ended, command

SMALL = ("noise=asym", "rate=0.4", "trainer.max_epochs=3", "model.warmup_epochs=1")


class Run(NamedTuple):
    folder: Path
    ended: Ended


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The main job on the digits, for three epochs, by the real command line."""
    where = tmp_path_factory.mktemp("finished")
    ended = command(where, *SMALL, "trainer.accelerator=cpu")
    assert ended.code == 0, ended.err
    (results,) = where.rglob("results.json")
    return Run(results.parent, ended)
