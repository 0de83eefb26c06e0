"""A killed run, resumed, ends with the bits of an uninterrupted one: real processes, real kills."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

# A server that has imported everything, but computed nothing, forks a fresh process per run.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["mln_lightning.job", "mln_lightning.config", "sklearn.datasets"])

EPOCHS, STEPS = 4, 8  # of digits with batch 128: 1,077 training images, the short batch dropped
CHOICES = {"model": "metalabelnet", "dataset": "digits", "noise": "asym"}
Point = tuple[str, int]


def overrides(workers: int) -> list[str]:
    return [
        "noise=asym",
        f"trainer.max_epochs={EPOCHS}",
        "trainer.accelerator=cpu",
        "model.warmup_epochs=2",
        "callbacks.checkpoint.every_n_steps=3",
        f"dataset.num_workers={workers}",
    ]


def strike_at(point: Point, number: int) -> None:
    """Arrange for this process to receive a signal at ``point`` of the run."""
    from mln_lightning import job
    from mln_lightning.models import NoisyLabelModule

    where, count = point
    seen = [0]

    def before(function: Callable[..., object]) -> Callable[..., object]:
        def wrapped(*args: object, **kwargs: object) -> object:
            seen[0] += 1
            if seen[0] == count:
                os.kill(os.getpid(), number)
            return function(*args, **kwargs)

        return wrapped

    if where == "step":
        NoisyLabelModule.training_step = before(NoisyLabelModule.training_step)
    elif where == "validation":
        NoisyLabelModule.validation_step = before(NoisyLabelModule.validation_step)
    elif where == "test":
        NoisyLabelModule.test_step = before(NoisyLabelModule.test_step)
    elif where == "replace":  # a file is written, but not yet in its place
        os.replace = before(os.replace)
    elif where == "export":
        job.write_classifier = before(job.write_classifier)
    else:
        job.write_results = before(job.write_results)


def train(
    folder: Path, workers: int, point: Point | None, number: int, extra: Sequence[str]
) -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    if point is not None:
        strike_at(point, number)
    from mln_lightning.config import compose
    from mln_lightning.errors import RunStopped
    from mln_lightning.job import run_job

    try:
        run_job(
            compose([*overrides(workers), *extra]),
            folder,
            choices=CHOICES,
            overrides=["noise=asym"],
        )
    except RunStopped as stopped:
        raise SystemExit(stopped.exit_code) from None


def in_a_process(
    folder: Path,
    workers: int,
    point: Point | None = None,
    number: int = signal.SIGKILL,
    extra: Sequence[str] = (),
) -> int:
    """Exit code of a run in a process of its own; negative if a signal killed it."""
    process = PROCESSES.Process(target=train, args=(folder, workers, point, number, extra))
    process.start()
    process.join(timeout=240)
    assert process.exitcode is not None, "the run hangs"
    return process.exitcode


def everything(folder: Path) -> dict[str, object]:
    """All that a run leaves behind, seconds aside."""
    results = json.loads((folder / "results.json").read_text())
    del results["seconds"]
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
    return {"results": results, **arrays, **weights, **texts}


def assert_same(left: dict[str, object], right: dict[str, object]) -> None:
    assert left.keys() == right.keys()
    assert [key for key in left if left[key] != right[key]] == []


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    assert in_a_process(folder, workers=0) == 0
    return everything(folder)


POINTS = [
    pytest.param(("step", 2), id="before-the-first-checkpoint"),
    pytest.param(("step", STEPS + 6), id="mid-epoch-of-the-warm-up"),
    pytest.param(("step", 2 * STEPS + 1), id="first-step-of-stage-two"),
    pytest.param(("step", 3 * STEPS + 8), id="last-step-of-the-last-epoch"),
    pytest.param(("validation", 3), id="validation"),
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
    assert in_a_process(folder, workers, point) == -signal.SIGKILL
    assert not (folder / "results.json").exists()
    assert in_a_process(folder, workers) == 0
    assert_same(everything(folder), uninterrupted)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("point", [("step", 2), ("step", 2 * STEPS + 5), ("validation", 2)])
def test_stopped_by_a_signal_and_resumed(
    point: Point, number: int, uninterrupted: dict[str, object], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    assert in_a_process(folder, 0, point, number) == 128 + number
    assert (folder / "last.ckpt").exists()
    assert in_a_process(folder, 0) == 0
    assert_same(everything(folder), uninterrupted)


def test_no_temporary_files_stay_behind(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert in_a_process(folder, 0, ("step", 2), signal.SIGINT) == 128 + signal.SIGINT
    assert not list(folder.glob(".*"))
