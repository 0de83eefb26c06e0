"""What a run leaves behind: every file is there, complete, and agrees with the others."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints, is_typeddict

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

import mln_lightning
from mln_lightning.config import compose
from mln_lightning.datasets import digits
from mln_lightning.noise import NoiseRecord
from mln_lightning.results import RunResults

from .conftest import SMALL, Run


@pytest.fixture(scope="module")
def folder(finished: Run) -> Path:
    return finished.folder


@pytest.fixture(scope="module")
def results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text())


@pytest.fixture(scope="module")
def record(folder: Path) -> NoiseRecord:
    return NoiseRecord.load(folder / "noise.npz")


@pytest.fixture(scope="module")
def labels(folder: Path) -> dict[str, np.ndarray]:
    with (folder / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "sample",
        "observed_label",
        "corrected_label",
        "confidence",
        "changed",
    ]
    return {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}


def test_files(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {
        *("config.yaml", "metrics.csv", "results.json", "labels.csv"),
        *("last.ckpt", "best.ckpt", "classifier.pt", "noise.npz", "soft_labels.npz"),
        *("noise.png", "moved.png", "confusion.png"),
    }


def misfits(value: Any, kind: Any, where: str) -> list[str]:
    """Where a JSON value departs from its annotation."""
    if is_typeddict(kind):
        hints = get_type_hints(kind)
        if not isinstance(value, dict) or value.keys() != hints.keys():
            return [f"{where}: {value}"]
        return [bad for key in hints for bad in misfits(value[key], hints[key], f"{where}.{key}")]
    if isinstance(kind, UnionType):
        tries = [misfits(value, option, where) for option in get_args(kind)]
        return [] if [] in tries else tries[0]
    if get_origin(kind) in (dict, list):
        if not isinstance(value, get_origin(kind)):
            return [f"{where}: {value}"]
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return [bad for key, v in items for bad in misfits(v, get_args(kind)[-1], f"{where}.{key}")]
    assert kind in (str, int, float, NoneType)
    return [] if type(value) is kind else [f"{where}: {value!r} is no {kind}"]


def test_results_follow_the_documented_schema(results: dict[str, Any]) -> None:
    assert misfits(results, RunResults, "results") == []
    documented = RunResults.__doc__ or ""
    assert [key for key in results if f"{key}:" not in documented] == []
    wrong = {**results, "seconds": {"total": "5"}}
    assert misfits(wrong, RunResults, "results") != []


def test_results_hold_what_was_asked(results: dict[str, Any]) -> None:
    assert results["choices"] == {
        "dataset": "digits",
        "noise": "asym",
        "model": "metalabelnet",
        "model/network": "small_cnn",
        "trainer": "default",
        "callbacks": "default",
        "logger": "csv",
    } | {k: v for k, v in results["choices"].items() if k == "preset"}
    assert results["overrides"] == [*SMALL, "trainer.accelerator=cpu"]
    assert results["seeds"] == {"seed": 0, "data_seed": 0}
    assert results["epochs"]["last"] == 3
    assert 1 <= results["epochs"]["selected"] <= 3
    assert results["noise"]["rate_asked"] == 0.4
    assert 0 < results["seconds"]["fit"] <= results["seconds"]["total"]
    assert results["versions"]["torch"] == torch.__version__
    assert results["device"] == "cpu"
    assert results["processes"] == 1


def test_fractions_are_fractions(results: dict[str, Any]) -> None:
    fractions = {
        name: value
        for name, value in results["metrics"].items()
        if name.startswith(("test/", "val/", "memorized/"))
        or name in ("labels/accuracy", "labels/recovered", "labels/damaged", "labels/calibration")
    }
    assert len(fractions) == 9
    fractions |= results["noise"]
    fractions |= {k: v for k, v in results["labels"].items() if k.startswith("accuracy")}
    assert {name: v for name, v in fractions.items() if not 0 <= v <= 1} == {}


def test_configuration_composes_to_the_same_again(folder: Path) -> None:
    saved = OmegaConf.load(folder / "config.yaml")
    assert saved == compose([*SMALL, "trainer.accelerator=cpu"])


def test_every_training_sample_has_its_labels_once(
    labels: dict[str, np.ndarray], record: NoiseRecord
) -> None:
    assert labels["sample"].tolist() == record.index.tolist()
    assert len(set(labels["sample"])) == len(labels["sample"]) == 1077
    assert labels["observed_label"].tolist() == record.observed[record.index].tolist()
    assert ((labels["confidence"] > 0.1 - 1e-4) & (labels["confidence"] <= 1)).all()
    differ = labels["observed_label"] != labels["corrected_label"]
    assert (labels["changed"] == differ).all()
    assert 0 < differ.sum() < len(differ)


def test_numbers_of_label_quality_follow_from_the_files(
    labels: dict[str, np.ndarray], record: NoiseRecord, results: dict[str, Any]
) -> None:
    clean = record.clean[record.index].numpy()
    before, after = labels["observed_label"] == clean, labels["corrected_label"] == clean
    assert results["labels"] == {
        "changed": labels["changed"].sum(),
        "accuracy_before": pytest.approx(before.mean(), abs=1e-12),
        "accuracy_after": pytest.approx(after.mean(), abs=1e-12),
        "recovered": (~before & after).sum(),
        "damaged": (before & ~after).sum(),
    }
    assert results["noise"]["rate_measured"] == pytest.approx(1 - before.mean(), abs=1e-12)
    assert record.rate_measured == results["noise"]["rate_measured"]
    assert record.rate_asked == 0.4


@pytest.mark.parametrize("name", ["noise", "moved", "confusion"])
def test_pictures_can_be_opened(folder: Path, name: str) -> None:
    with Image.open(folder / f"{name}.png") as picture:
        picture.load()
        assert picture.width == 1300
        assert len(picture.convert("RGB").getcolors(2**20) or []) > 50


def test_soft_labels(folder: Path, record: NoiseRecord) -> None:
    with np.load(folder / "soft_labels.npz") as file:
        index, soft = file["index"], file["soft_labels"]
    assert index.tolist() == record.index.tolist()
    assert soft.shape == (1077, 10)
    assert soft.min() >= 0
    np.testing.assert_allclose(soft.sum(axis=1), 1, atol=1e-5)


def test_loaded_classifier_is_the_one_that_was_tested(
    folder: Path, results: dict[str, Any]
) -> None:
    test = digits().test
    trained = mln_lightning.load(folder)

    def accuracy() -> float:
        predicted = torch.cat([trained.predict(images) for images in test.images.split(100)])
        return (predicted == test.labels).double().mean().item()

    metrics = results["metrics"]
    assert metrics["test/accuracy_last"] == pytest.approx(accuracy(), abs=1e-6)
    state = torch.load(folder / "best.ckpt", weights_only=True)["state_dict"]
    best = {k.removeprefix("network."): v for k, v in state.items() if k.startswith("network.")}
    trained.network.load_state_dict(best)
    assert metrics["test/accuracy_selected"] == pytest.approx(accuracy(), abs=1e-6)


def test_corrected_labels_are_the_classifiers(
    folder: Path, labels: dict[str, np.ndarray], record: NoiseRecord
) -> None:
    images = digits().train.images[record.index]
    confidence, predicted = mln_lightning.load(folder).probabilities(images).max(dim=1)
    assert labels["corrected_label"].tolist() == predicted.tolist()
    np.testing.assert_allclose(labels["confidence"], confidence.numpy(), atol=2e-4)


def test_weights_and_checkpoint_agree(folder: Path) -> None:
    plain = torch.load(folder / "classifier.pt", weights_only=True)
    saved = torch.load(folder / "last.ckpt", weights_only=True)["state_dict"]
    assert plain.keys() == {k.removeprefix("network.") for k in saved if k.startswith("network.")}
    assert all(torch.equal(value, saved[f"network.{name}"]) for name, value in plain.items())


def test_metrics_by_epoch(folder: Path, results: dict[str, Any]) -> None:
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    assert [row["step"] for row in rows] == ["8", "16", "24"]
    last = {k: float(v) for k, v in rows[-1].items() if k not in ("epoch", "step") and v}
    metrics = dict(results["metrics"])
    selected = rows[results["epochs"]["selected"] - 1]
    assert metrics.pop("val/accuracy_selected") == float(selected["val/accuracy"])
    assert last == {k: v for k, v in metrics.items() if not k.startswith("test/")}
    assert rows[0]["meta/loss"] == "", "the first epoch is warm-up"
    chosen = max(range(1, 3), key=lambda epoch: (float(rows[epoch]["val/accuracy"]), epoch))
    assert results["epochs"]["selected"] == chosen + 1
