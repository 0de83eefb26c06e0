"""The comparison of methods: complete, tuned as it says, and shown as it was measured."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from mln_lightning.catalog import methods

ROOT = Path(__file__).parents[2]
EXPERIMENTS = ROOT / "experiments"
NO_MATRIX = ("forward_oracle", "instance")  # instance noise has no transition matrix to know


def module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@pytest.fixture(scope="module")
def report() -> ModuleType:
    return module(EXPERIMENTS / "methods" / "report.py")


def test_every_method_has_three_seeds_of_three_kinds_of_noise(report: ModuleType) -> None:
    rows = report.read()
    wrong = {
        (method.name, noise): len(found)
        for method in methods()
        for noise in ("sym", "asym", "instance")
        if len(found := report.of(rows, method.name, noise, 0.4, 180)) != 3
    }
    assert wrong == {NO_MATRIX: 0}


def test_ten_methods_have_more_noise(report: ModuleType) -> None:
    hard = {row["model"] for row in report.read() if float(row["rate"] or 0) == 0.8}
    assert len(hard) >= 10


def test_methods_with_a_meta_set_were_run_with_smaller_ones(report: ModuleType) -> None:
    rows = report.read()
    for method in methods():
        if "meta set" in method.needs:
            for size in (20, 60):
                assert len(report.of(rows, method.name, "sym", 0.4, size)) == 3, (method, size)


@pytest.mark.parametrize("page", [ROOT / "README.md", EXPERIMENTS / "methods" / "README.md"])
def test_tables_are_those_of_the_runs(page: Path, report: ModuleType) -> None:
    text = page.read_text()
    shown = 0
    for name, table in report.tables().items():
        if f"<!-- {name} -->" in text:
            assert table in text, f"{name}: run experiments/methods/report.py"
            shown += 1
    assert shown


def test_settings_are_those_that_tuning_chose() -> None:
    tune = module(EXPERIMENTS / "methods_tuning" / "tune.py")
    grids = tune.grids()
    assert set(grids) == {method.name for method in methods()}
    assert all(len(tune.settings(grid)) == 4 for grid in grids.values()), "eight trials each"
    rows = tune.read()
    found = tune.scores(rows)
    for model, grid in grids.items():
        assert {len(noises) for noises in found[model].values()} == {2}
        assert set(found[model]) == set(tune.settings(grid))
        chosen = tune.best(found[model], tune.settings(grid))
        path = tune.TUNED / f"methods_{model}.yaml"
        text = path.read_text() if path.exists() else ""
        assert text == tune.tuned_text(model, chosen)
    assert tune.table(rows) in (EXPERIMENTS / "methods_tuning" / "README.md").read_text()
