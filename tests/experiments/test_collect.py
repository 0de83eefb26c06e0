"""Collecting: hand-made results in, a CSV and tables out."""

from __future__ import annotations

import csv
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[2] / "experiments" / "collect.py"


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("collect", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


collect = load()


def results(model: str, seed: int, accuracy: float, *overrides: str, **seeds: int) -> dict:
    return {
        "choices": {
            "dataset": "digits",
            "noise": "asym",
            "model": model,
            "model/network": "small_cnn",
            "experiment": "null",
        },
        "overrides": ["noise=asym", f"model={model}", f"seed={seed}", *overrides],
        "seeds": {"seed": seed, "data_seed": seeds.get("data_seed", 0)},
        "noise": {"rate_asked": 0.4, "rate_measured": 0.2},
        "metrics": {"test/accuracy_last": accuracy, "test/accuracy_selected": accuracy + 0.01},
        "labels": {"accuracy_before": 0.8, "accuracy_after": 0.9, "recovered": 9, "damaged": 1},
        "seconds": {"total": 12.5},
        "versions": {"torch": "2"},
        "commit": "abc",
        "device": "cpu",
    }


ACCURACIES = {"ours": [0.9, 0.95, 0.97], "theirs": [0.8, 0.91, 0.9]}


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    runs = [
        collect.row(results(model, seed, accuracy), f"{model}/{seed}")
        for model, accuracies in ACCURACIES.items()
        for seed, accuracy in enumerate(accuracies)
    ]
    runs.append(collect.row(results("ours", 0, 0.5, "model.lr=1", "download=true"), "x"))
    return runs


def test_row_is_flat(rows: list[dict[str, Any]]) -> None:
    assert rows[0]["labels.recovered"] == 9
    assert rows[0]["seconds.total"] == 12.5
    assert rows[0]["other"] == ""
    assert rows[-1]["other"] == "model.lr=1"
    assert not any(isinstance(value, dict | list) for value in rows[0].values())


def test_data_seed_is_a_seed_and_no_setting() -> None:
    run = collect.row(results("ours", 0, 0.5, "data_seed=3", data_seed=3), "x")
    assert run["other"] == ""
    assert collect.seeds(run) == (0, 3)


def test_summary_is_mean_and_sample_deviation(rows: list[dict[str, Any]]) -> None:
    lines = collect.summary(rows).splitlines()
    assert len(lines) == 2 + 3
    (ours,) = [line for line in lines if "| ours |" in line and "model.lr" not in line]
    values = 100 * np.array(ACCURACIES["ours"])
    assert f"| 3 | {values.mean():.2f} ± {values.std(ddof=1):.2f} |" in ours
    (alone,) = [line for line in lines if "model.lr=1" in line]
    assert "| 1 | 50.00 |" in alone


def test_order_of_folders_does_not_matter(rows: list[dict[str, Any]]) -> None:
    assert collect.summary(rows) == collect.summary(rows[::-1])


def test_paired_difference(rows: list[dict[str, Any]]) -> None:
    (difference,) = collect.paired_difference(rows[::-1], "ours", "theirs").values()
    expected = np.subtract(ACCURACIES["ours"], ACCURACIES["theirs"])
    np.testing.assert_allclose(difference, expected, atol=1e-12)
    text = collect.comparison(rows, "ours", "theirs")
    assert f"{100 * expected.mean():.2f} ± {100 * expected.std(ddof=1):.2f}" in text


def test_only_seeds_that_both_have_are_paired(rows: list[dict[str, Any]]) -> None:
    fewer = [run for run in rows if (run["model"], run["seed"]) != ("theirs", 1)]
    (difference,) = collect.paired_difference(fewer, "ours", "theirs").values()
    assert len(difference) == 2
    assert collect.paired_difference(rows, "ours", "nobody") == {}


def test_missing_metrics_leave_a_dash() -> None:
    run = results("ours", 0, 0.9)
    del run["labels"]["accuracy_after"]
    other = results("theirs", 0, 0.8)
    text = collect.summary([collect.row(run, "a"), collect.row(other, "b")])
    assert "| 80.00 | - |" in text


def test_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, content in {
        "a/seed-0": json.dumps(results("ours", 0, 0.9)),
        "a/seed-1": json.dumps(results("ours", 1, 0.8)),
        "a/.seed-1.replaced": json.dumps(results("ours", 1, 0.1)),
        "a/seed-2": "{damaged",
    }.items():
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "results.json").write_text(content)
    monkeypatch.setattr(sys, "argv", ["collect.py", str(tmp_path), "--pair", "ours", "theirs"])
    collect.main()
    said = capsys.readouterr()
    assert "seed-2" in said.err
    with (tmp_path / "results.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["test/accuracy_last"] for line in lines] == ["0.9", "0.8"]
    assert [line["folder"] for line in lines] == ["a/seed-0", "a/seed-1"]
    assert "85.00" in (tmp_path / "results.md").read_text()


def test_nothing_to_collect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["collect.py", str(tmp_path / "none")])
    with pytest.raises(SystemExit, match="no finished run"):
        collect.main()
