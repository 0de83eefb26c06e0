"""The summary of a finished run, and how it was made.

Files of a run folder, besides ``config.yaml``, ``metrics.csv``, ``last.ckpt`` and ``best.ckpt``:

* ``results.json``: the summary described by `RunResults`; written last, so a folder that has it
  holds a finished run.
* ``classifier.pt``: the network's weights after the last epoch (``torch.load`` with
  ``weights_only=True``).
* ``noise.npz``: see `mln_lightning.noise.NoiseRecord`; ``noise.png``: what the noise looks like.
* ``soft_labels.npz``: ``index (n,)`` int64, ``soft_labels (n, C)`` float32, one row per training
  sample.
* ``unreadable.txt``: names and reasons of images that were left out, if any.
* ``labels.csv``: a line per training sample with ``sample`` (row of the full training set),
  ``path`` (where images are files), ``observed_label`` (empty = unlabelled), ``corrected_label``,
  ``confidence`` (probability of the corrected label), ``changed`` (0 or 1). Classes are named, or
  numbered where they have no names.
* ``moved.png``: the images whose label changed most; ``confusion.png``: what the test images were
  taken for, after the last epoch; none without a test set.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TypedDict

import torch

from mln_lightning import __version__
from mln_lightning.files import write_atomically
from mln_lightning.metrics.label_quality import CorrectionCounts


class NoiseResults(TypedDict):
    """Noise of the training part, fractions; ``rate_measured`` is null when no truth is known."""

    rate_asked: float | None
    rate_measured: float | None


class RunResults(TypedDict):
    """The content of ``results.json``.

    Attributes:
        choices: configuration groups chosen, by name.
        overrides: command-line overrides, in order.
        seeds: ``seed`` of the training, ``data_seed`` of noise and split.
        metrics: fractions by name; ``test/accuracy_last`` after the last epoch,
            ``test/accuracy_selected`` at the epoch with the best validation accuracy (both absent
            without a test set, more with further ones: see `mln_lightning.evaluation`),
            ``val/accuracy_selected`` at that epoch too, on observed labels (absent without a
            validation part), and the last epoch's row of ``metrics.csv``.
        epochs: ``last`` and ``selected``, counted from 1.
        noise: see `NoiseResults`.
        labels: of the training part, see `CorrectionCounts`.
        seconds: ``fit``, ``total``; wall clock, summed over interruptions.
        versions: of Python and the main packages.
        commit: of the source tree, null outside a checkout.
        device: name of the device the run ended on.
        processes: how many trained together when the run ended.
    """

    choices: dict[str, str]
    overrides: list[str]
    seeds: dict[str, int]
    metrics: dict[str, float]
    epochs: dict[str, int]
    noise: NoiseResults
    labels: CorrectionCounts
    seconds: dict[str, float]
    versions: dict[str, str]
    commit: str | None
    device: str
    processes: int


def write_results(run_dir: Path, results: RunResults) -> None:
    """Write ``results.json``; its presence says that the run is finished."""
    write_atomically(
        run_dir / "results.json", json.dumps(results, indent=2, allow_nan=False) + "\n"
    )


def versions() -> dict[str, str]:
    """Versions of Python, this package and what its numbers depend on."""
    packages = ("torchvision", "lightning", "torchmetrics", "hydra-core", "numpy")
    return {
        "python": platform.python_version(),
        "mln_lightning": __version__,
        "torch": str(torch.__version__),  # tells the CUDA build too, unlike the package's metadata
        **{name: version(name) for name in packages},
    }


def commit() -> str | None:
    """The commit of the source tree this package runs from; ``-dirty`` if it was changed."""
    source = Path(__file__).resolve().parents[2]
    if not (source / ".git").exists():
        return None
    command = ["git", "-C", os.fspath(source), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def last_values(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """The metrics of the last epoch's row, without its counters."""
    return {k: v for k, v in rows[-1].items() if k not in ("epoch", "step")} if rows else {}
