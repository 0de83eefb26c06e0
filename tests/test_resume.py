"""A killed run, resumed, ends with the bits of an uninterrupted one: real processes, real kills."""

from __future__ import annotations

import json
import signal
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from processes import Point, Strike, calm, in_a_process, strike_at

EPOCHS, STEPS = 4, 8  # of digits with batch 128: 1,077 training images, the short batch dropped
CHOICES = {"model": "metalabelnet", "dataset": "digits", "noise": "asym"}


def overrides(workers: int) -> list[str]:
    return [
        "noise=asym",
        f"trainer.max_epochs={EPOCHS}",
        "trainer.accelerator=cpu",
        "model.warmup_epochs=2",
        "callbacks.checkpoint.every_n_steps=3",
        f"dataset.num_workers={workers}",
    ]


def train(folder: Path, workers: int, strike: Strike | None, extra: Sequence[str]) -> None:
    calm()
    if strike is not None:
        strike_at(strike)
    from mln_lightning.config import compose
    from mln_lightning.errors import RunStopped
    from mln_lightning.folders import LAST_CHECKPOINT
    from mln_lightning.job import run_job
    from mln_lightning.stopping import stoppable

    try:
        with stoppable(folder / LAST_CHECKPOINT):
            run_job(
                compose([*overrides(workers), *extra]),
                folder,
                choices=CHOICES,
                overrides=["noise=asym"],
            )
    except RunStopped as stopped:
        raise SystemExit(stopped.exit_code) from None


def run(
    folder: Path, workers: int = 0, strike: Strike | None = None, extra: Sequence[str] = ()
) -> int:
    """Exit code of a run in a process of its own; negative if a signal killed it."""
    return in_a_process(train, folder, workers, strike, extra)


def everything(folder: Path) -> dict[str, object]:
    """All that a run leaves behind; the clock and the source tree may have moved meanwhile."""
    results = json.loads((folder / "results.json").read_text())
    del results["seconds"], results["commit"]
    with np.load(folder / "soft_labels.npz") as soft, np.load(folder / "noise.npz") as noise:
        arrays = {f"soft/{k}": soft[k].tobytes() for k in soft.files}
        arrays |= {f"noise/{k}": noise[k].tobytes() for k in noise.files}
    weights = {}
    for name in ("last.ckpt", "best.ckpt"):
        saved = torch.load(folder / name, weights_only=True)
        weights |= {f"{name}/{k}": v.numpy().tobytes() for k, v in saved["state_dict"].items()}
        weights[f"{name}/optimizers"] = repr(saved["optimizer_states"])
    for k, v in torch.load(folder / "classifier.pt", weights_only=True).items():
        weights[f"classifier/{k}"] = v.numpy().tobytes()
    texts = {name: (folder / name).read_text() for name in ("metrics.csv", "labels.csv")}
    pictures = {path.name: path.read_bytes() for path in folder.glob("*.png")}
    return {"results": results, **arrays, **weights, **texts, **pictures}


def assert_same(left: dict[str, object], right: dict[str, object]) -> None:
    assert left.keys() == right.keys()
    assert [key for key in left if left[key] != right[key]] == []


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    assert run(folder) == 0
    return everything(folder)


POINTS = [
    pytest.param(("step", 2), id="before-the-first-checkpoint"),
    pytest.param(("step", STEPS + 6), id="mid-epoch-of-the-warm-up"),
    pytest.param(("step", 2 * STEPS + 1), id="first-step-of-stage-two"),
    pytest.param(("step", 2 * STEPS + 5), id="mid-epoch-of-stage-two"),
    pytest.param(("step", 3 * STEPS + 8), id="last-step-of-the-last-epoch"),
    pytest.param(("validation", 3), id="validation-of-the-warm-up"),
    pytest.param(("validation", 5), id="validation-of-stage-two"),
    pytest.param(("replace", 9), id="while-a-checkpoint-is-written"),
    pytest.param(("test", 1), id="test"),
    pytest.param(("export", 1), id="export"),
    pytest.param(("results", 1), id="before-the-results"),
]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("point", POINTS)
def test_killed_and_resumed(
    point: Point, workers: int, uninterrupted: dict[str, object], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    assert run(folder, workers, Strike(point)) == -signal.SIGKILL
    assert not (folder / "results.json").exists()
    assert run(folder, workers) == 0
    assert_same(everything(folder), uninterrupted)


STOPS = [
    pytest.param(("step", 2), id="first-epoch"),
    pytest.param(("step", 2 * STEPS + 5), id="stage-two"),
    pytest.param(("validation", 2), id="validation"),
    pytest.param(("test", 1), id="test"),
    pytest.param(("export", 1), id="export"),
    pytest.param(("results", 1), id="before-the-results"),
]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("point", STOPS)
def test_stopped_by_a_signal_and_resumed(
    point: Point, number: int, uninterrupted: dict[str, object], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    assert run(folder, strike=Strike(point, number)) == 128 + number
    assert (folder / "last.ckpt").exists()
    assert not (folder / "results.json").exists()
    assert run(folder) == 0
    assert_same(everything(folder), uninterrupted)


def test_no_temporary_files_stay_behind(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    strike = Strike(("step", 2), signal.SIGINT)
    assert run(folder, strike=strike) == 128 + signal.SIGINT
    assert not list(folder.glob(".*"))
