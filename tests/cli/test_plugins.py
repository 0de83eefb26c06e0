"""Launchers and sweepers that are plugins: composed, refused; a search with stand-ins for runs."""

from __future__ import annotations

import importlib
import json
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from mln_lightning import plugins
from mln_lightning.config import _config_loader, plan
from mln_lightning.errors import UserError
from mln_lightning.search import check_possible, check_sweeper, examples

from .conftest import FakeJob
from .test_run import raises

Call = Callable[..., int]
LAUNCHERS = ("joblib", "submitit_local", "submitit_slurm")
SEARCH = ("-m", "hydra/sweeper=optuna", "noise=asym", "hydra.sweeper.sampler.n_startup_trials=3")


def hydra_node(*overrides: str) -> Any:
    from hydra.types import RunMode

    loader = _config_loader(None)
    return loader.load_configuration("config", list(overrides), RunMode.MULTIRUN).hydra


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_launcher_composes_as_the_plugin_wants_it(launcher: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of Hydra, on two options of one name
        asked = plan(["seed=1", f"hydra/launcher={launcher}", "hydra.sweep.dir=there"], sweep=True)
    assert (asked.beside, asked.search) == (True, False)
    assert [job.run_dir.name for job in asked.jobs] == ["seed-1"], "as without"

    from hydra_plugins.hydra_joblib_launcher.config import JobLibLauncherConf
    from hydra_plugins.hydra_submitit_launcher.config import LocalQueueConf, SlurmQueueConf

    theirs = OmegaConf.structured(
        {
            "joblib": JobLibLauncherConf,
            "submitit_local": LocalQueueConf,
            "submitit_slurm": SlurmQueueConf,
        }[launcher]
    )
    ours = hydra_node(f"hydra/launcher={launcher}", "hydra.sweep.dir=there").launcher
    beyond = {"submitit_local": {"setup"}}.get(launcher, set())
    assert set(ours) - beyond <= set(theirs)
    assert ours._target_ == theirs._target_
    OmegaConf.merge(theirs, {key: ours[key] for key in ours if key not in beyond})  # of their types
    if launcher != "joblib":
        assert ours.submitit_folder == "there/.submitit/%j"


def test_a_run_on_several_nodes_composes() -> None:
    """The worked example of docs/sweeps.md."""
    page = (Path(__file__).parents[2] / "docs" / "sweeps.md").read_text()
    commands = re.findall(r"^\$ (.*?[^\\])$", page, re.M | re.S)
    (example,) = (command for command in commands if "hydra.launcher.nodes" in command)
    words = example.replace("\\\n", " ").split()
    assert words[:4] == ["python", "-m", "mln_lightning.run", "-m"]
    asked = plan(words[4:], sweep=True)
    launcher = hydra_node(*(word for word in words if word.startswith("hydra"))).launcher
    for job in asked.jobs:
        assert job.cfg.trainer.num_nodes == launcher.nodes == 2
        assert job.cfg.trainer.devices == launcher.tasks_per_node == launcher.gpus_per_node
    assert launcher.max_num_timeout > 0


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ("hydra/launcher=joblib", "hydra/launcher=joblib is for sweeps; add -m"),
        ("-m hydra/sweeper=optuna noise=asym,sim", "did you mean 'sym'"),
        ("-m hydra/sweeper=optuna rate=interval(0.2,1.2)", "rate=1.2 is outside"),
        ("-m hydra/sweeper=optuna model=gce", "nothing to search: this model has no ready ranges"),
    ],
)
def test_what_cannot_work_is_refused_at_once(
    mln: Call, job: FakeJob, capsys: pytest.CaptureFixture[str], overrides: str, said: str
) -> None:
    assert mln(*overrides.split()) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1
    assert job.calls == []


def ranges(*overrides: str) -> list[Override]:
    return OverridesParser.create().parse_overrides(list(overrides))


def test_examples_show_both_ends_and_every_choice() -> None:
    found = examples(
        ranges("a=interval(1.0,2.0)", "noise=sym,asym,none", "b=int(interval(3,4))", "c=5", "a=7")
    )
    assert found == [
        ["a=7", "noise=sym", "b=3", "c=5"],
        ["a=7", "noise=asym", "b=4", "c=5"],
        ["a=7", "noise=none", "b=3", "c=5"],
    ]
    assert examples(ranges("a=tag(log,interval(0.1,1.0))")) == [["a=0.1"], ["a=1.0"]]
    with pytest.raises(UserError, match="one method"):
        examples(ranges("model=gce,sce"))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"n_trials": 0}, "n_trials=0 is less than 1; it counts runs, in all"),
        ({"n_jobs": -1}, "n_jobs=-1 is less than 1; it counts runs, proposed at a time"),
        ({"storage": "sqlite:///a.db"}, "continues from its run folders; leave it out"),
    ],
)
def test_a_search_that_would_not_end_or_not_continue(changed: dict[str, Any], said: str) -> None:
    sweeper = {"n_trials": 1, "n_jobs": 1, "storage": {"_target_": "…"}}
    check_sweeper(OmegaConf.create(sweeper))
    with pytest.raises(UserError, match=re.escape(said)):
        check_sweeper(OmegaConf.create(sweeper | changed))


def test_a_search_needs_validation_images_and_leads_alone() -> None:
    with pytest.raises(UserError, match="no validation images"):
        check_possible(OmegaConf.create({"dataset": {"num_val": 0}}), alone=True)
    with pytest.raises(UserError, match="without torchrun"):
        check_possible(OmegaConf.create({"dataset": {"num_val": 20}}), alone=False)
    check_possible(OmegaConf.create({"dataset": {"num_val": "10%"}}), alone=True)


@pytest.mark.parametrize(
    ("choice", "extra"),
    [("hydra/launcher=submitit_slurm", "launchers"), ("hydra/sweeper=optuna", "sweeper")],
)
def test_a_plugin_that_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, choice: str, extra: str
) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(plugins, "find_spec", missing)
    with pytest.raises(UserError, match=re.escape(f'pip install "mln-lightning[{extra}]"')):
        plan([choice], sweep=True)


def test_files_stand_for_registered_options() -> None:
    _config_loader(None)
    registered = ConfigStore.instance().repo["hydra"]
    assert not {f"{name}.yaml" for name in LAUNCHERS} & set(registered["launcher"])
    assert "optuna.yaml" not in registered["sweeper"]
    assert "random.yaml" in registered["sweeper"]["sampler"], "what has no file stays"


def validation_accuracy(folder: Path) -> None:
    """Leaves results as a run would, computed from what the folder's name says."""
    digits = int(folder.name.rpartition("-")[2], 16)
    metrics = {"val/accuracy_selected": digits % 997 / 1000, "test/accuracy_selected": 0.5}
    (folder / "results.json").write_text(json.dumps({"metrics": metrics}))


class Searched(FakeJob):
    """Runs whose validation accuracy depends on their settings alone."""

    def run_job(self, cfg: Any, run_dir: Path, **others: Any) -> None:
        super().run_job(cfg, run_dir, **others)
        validation_accuracy(run_dir)


@pytest.fixture
def searched(job: FakeJob, monkeypatch: pytest.MonkeyPatch) -> FakeJob:
    with warnings.catch_warnings():  # Optuna 2 on today's SQLAlchemy
        warnings.simplefilter("ignore")
        importlib.import_module("optuna.integration")

    fake = Searched()
    vars(sys.modules["mln_lightning.job"])["run_job"] = fake.run_job
    return fake


def settings(job: FakeJob) -> list[tuple[str, ...]]:
    return [tuple(sorted(overrides)) for _, _, overrides in job.calls]


@pytest.mark.slow
def test_a_search_continues_where_it_was_stopped(
    mln: Call, searched: FakeJob, outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = ("hydra.sweeper.n_trials=6", "hydra.sweep.dir=whole")
    assert mln(*SEARCH, *whole) == 0
    undisturbed = settings(searched)
    assert len(set(undisturbed)) == 6
    out = capsys.readouterr().out
    scores = {path.parent: json.loads(path.read_text()) for path in Path("whole").rglob("*.json")}
    best = max(s["metrics"]["val/accuracy_selected"] for s in scores.values())
    assert f"Best of 6 runs by validation accuracy (observed labels): {100 * best:.2f} %" in out
    saved = OmegaConf.load("whole/optimization_results.yaml")
    assert saved.best_value == best
    assert {f"{key}={value}" for key, value in saved.best_params.items()} < set(
        out.splitlines()[-1].split()
    )

    searched.calls.clear()
    assert mln(*SEARCH, "hydra.sweeper.n_trials=5") == 0
    last = searched.calls[-1][0]
    (last / "results.json").unlink()  # as if it had been stopped there
    for path in outputs.rglob("results.json"):  # what is known of the test set changes nothing
        results = json.loads(path.read_text())
        results["metrics"]["test/accuracy_selected"] = hash(path) % 100 / 100
        path.write_text(json.dumps(results))
    begun = settings(searched)
    searched.calls.clear()
    assert mln(*SEARCH, "hydra.sweeper.n_trials=6") == 0
    assert searched.calls[0][0] == last
    assert begun + settings(searched)[1:] == undisturbed
    assert len(searched.calls) == 2


@pytest.mark.slow
def test_a_failed_run_is_a_failed_trial(
    mln: Call, searched: FakeJob, outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[Path] = []

    def second(run_dir: Path) -> None:
        seen.append(run_dir)
        if len(seen) == 2:
            raises(ValueError("The loss was not finite."))(run_dir)

    searched.actions["seed-0"] = second
    assert mln(*SEARCH, "hydra.sweeper.n_trials=2") == 1
    ran = capsys.readouterr()
    assert ran.err == "failed: The loss was not finite.\n"
    assert "Best of 1 run by" in ran.out
    assert [line.split()[0] for line in ran.out.splitlines() if line.startswith("f")] == [
        "finished",
        "failed",
    ]
    searched.actions.clear()
    searched.calls.clear()
    assert mln(*SEARCH, "hydra.sweeper.n_trials=2") == 0
    assert searched.calls[0][0] == seen[1], "tried again, the first is not"


@pytest.mark.slow
def test_a_search_that_finishes_nothing(
    mln: Call, searched: FakeJob, capsys: pytest.CaptureFixture[str]
) -> None:
    searched.actions["seed-0"] = raises(ValueError("no"))
    assert mln(*SEARCH, "hydra.sweeper.n_trials=2") == 1
    ran = capsys.readouterr()
    assert ran.err.splitlines()[-1] == "The sweep ended early: No trials are completed yet."
    assert ran.out.splitlines()[-1] == "No run of the search was finished."


@pytest.mark.slow
def test_settings_given_are_not_searched(mln: Call, searched: FakeJob) -> None:
    fixed = ("model.warmup_epochs=5", "model.virtual_lr=1.0,2.0", "hydra.sweeper.n_trials=2")
    assert mln(*SEARCH, *fixed) == 0
    for told in settings(searched):
        assert "model.warmup_epochs=5" in told
        assert {"model.virtual_lr=1.0", "model.virtual_lr=2.0"} & set(told)
        assert sum(line.startswith("model.optimizer.lr=0.") for line in told) == 1
