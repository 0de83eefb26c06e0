"""What the README says is run, and its tables are those of the runs."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


@pytest.mark.filterwarnings("ignore:.*tensorboard")
def test_library_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a reader would: own arrays with wrong labels, an own network, fewer epochs."""
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert "max_epochs=40" in code
    assert len([line for line in code.splitlines() if line.strip()]) <= 26
    digits = load_digits()
    x = np.round(digits.images * 255 / 16).astype(np.uint8)
    train, rest = train_test_split(np.arange(len(x)), test_size=540, random_state=0)
    meta, test = rest[:180], rest[180:]
    y, wrong = digits.target.astype(np.int64), digits.target.astype(np.int64).copy()
    hit = np.random.default_rng(0).random(len(y)) < 0.4
    wrong[hit] = (wrong[hit] + np.random.default_rng(1).integers(1, 10, hit.sum())) % 10
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 10)
    )
    images = torch.from_numpy(x)[:, None]
    names = {
        "images": images[train],
        "labels": torch.from_numpy(wrong[train]),
        "meta_images": images[meta],
        "meta_labels": torch.from_numpy(y[meta]),
        "test_images": images[test],
        "test_labels": torch.from_numpy(y[test]),
        "my_network": network,
    }
    monkeypatch.chdir(tmp_path)
    exec(code.replace("max_epochs=40", "max_epochs=12, accelerator='cpu'"), names)

    rows = [row.split(",") for row in (tmp_path / "labels.csv").read_text().splitlines()[1:]]
    sample, observed, corrected = (np.array([int(row[i]) for row in rows]) for i in range(3))
    assert len(rows) == len(train) - 180, "without the validation part"
    assert (observed == wrong[train][sample]).all()
    truth = y[train][sample]
    before, after = np.mean(observed == truth), np.mean(corrected == truth)
    assert before < 0.65
    assert after > 0.85, "most wrong labels are mended by then"


def report() -> ModuleType:
    path = ROOT / "experiments" / "digits" / "report.py"
    spec = importlib.util.spec_from_file_location("digits_report", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["accuracy", "labels", "meta"])
def test_tables_are_those_of_the_runs(name: str) -> None:
    module = report()
    table = module.tables(module.read())[name]
    assert "-" not in [cell.strip() for cell in table.split("|")], "a run is missing"
    assert table in README


def test_experiment_page_shows_its_tables() -> None:
    module = report()
    page = (ROOT / "experiments" / "digits" / "README.md").read_text()
    for table in module.tables(module.read()).values():
        assert table in page
