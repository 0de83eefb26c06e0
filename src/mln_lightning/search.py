"""Searches for good settings: what they maximise, what they tried, how they continue.

A search keeps no file of its own. Its sampler is seeded, so the same command proposes the same runs
as long as it is told the same results; finished runs answer from their folders at once, the first
unfinished one is resumed, and the search goes on from there, also with more trials than before.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from hydra.core.override_parser.types import IntervalSweep, Override
from omegaconf import DictConfig, OmegaConf

from mln_lightning.errors import UserError
from mln_lightning.files import shown

if TYPE_CHECKING:
    from optuna.storages import InMemoryStorage

OBJECTIVE = "val/accuracy_selected"
"""The metric in ``results.json`` that a search maximises: observed labels, never the test set."""

_STUDY = "mln"  # its name in the storage, as conf/hydra/sweeper/optuna.yaml gives it


class Tried(Protocol):
    """A run of a search."""

    @property
    def run_dir(self) -> Path:
        """Its folder."""

    @property
    def overrides(self) -> list[str]:
        """What its command line changed."""


def objective(run_dir: Path) -> float | None:
    """What a search maximises: the validation accuracy, on observed labels, at the selected epoch.

    Args:
        run_dir: of a run.

    Returns:
        a fraction; None for a run that is not finished, or had no validation part.
    """
    try:
        results = json.loads((run_dir / "results.json").read_text())
        return float(results["metrics"][OBJECTIVE])
    except (OSError, ValueError, KeyError):
        return None


def examples(ranges: Sequence[Override]) -> list[list[str]]:
    """A few runs that a search may try: both ends of every range, every choice.

    Args:
        ranges: parsed overrides; of two for one key the last counts.

    Raises:
        UserError: there is no range to search, or several methods.
    """
    last = {override.get_key_element(): override for override in ranges}
    swept = {key for key, override in last.items() if override.is_sweep_override()}
    if "model" in swept:
        raise UserError("a search tunes one method; start one search for each model")
    if not swept:
        raise UserError(
            "nothing to search: this model has no ready ranges; give at least one, such as "
            "'model.optimizer.lr=tag(log,interval(0.01,0.2))'"
        )
    values = {key: _values(override) for key, override in last.items()}
    return [
        [f"{key}={known[number % len(known)]}" for key, known in values.items()]
        for number in range(max(map(len, values.values())))
    ]


def _values(override: Override) -> list[str]:
    value = override.value()
    if isinstance(value, IntervalSweep):
        return [str(value.start), str(value.end)]
    if override.is_sweep_override():
        return list(override.sweep_string_iterator())
    return [override.get_value_element_as_str()]


def check_sweeper(sweeper: DictConfig) -> None:
    """Refuse numbers with which a search would never end, and a memory of its own.

    Args:
        sweeper: the node ``hydra.sweeper`` of a composed configuration.

    Raises:
        UserError: naming the key, its value, and what is allowed.
    """
    for key in ("n_trials", "n_jobs"):
        if OmegaConf.select(sweeper, key, default=1) < 1:
            raise UserError(
                f"hydra.sweeper.{key}={sweeper[key]} is less than 1; it counts runs, "
                f"{'in all' if key == 'n_trials' else 'proposed at a time'}"
            )
    storage = OmegaConf.select(sweeper, "storage")
    if not OmegaConf.is_dict(storage):
        raise UserError(
            f"hydra.sweeper.storage={storage} cannot be used: a search continues from its run "
            "folders; leave it out"
        )


def check_possible(cfg: DictConfig, *, alone: bool) -> None:
    """Refuse to search without validation images, or with several processes that each would.

    Args:
        cfg: of one run.
        alone: whether no launcher such as torchrun has started other processes beside this one.

    Raises:
        UserError: saying which.
    """
    if OmegaConf.select(cfg, "dataset.num_val", default=None) in (0, "0"):
        raise UserError(
            "dataset.num_val=0 leaves no validation images, and a search compares settings by "
            "them; use dataset.num_val=0.1 or so"
        )
    if not alone:
        raise UserError(
            "a search is led by one process; start it without torchrun or srun, its runs start "
            "theirs (trainer.devices=2)"
        )


@cache
def trials_of_this_process() -> InMemoryStorage:
    """Where Optuna keeps the trials of a search while it lasts; Hydra calls this by its name."""
    import logging

    from optuna.logging import set_verbosity
    from optuna.storages import InMemoryStorage

    set_verbosity(logging.ERROR)  # each run has its lines already
    logging.getLogger("hydra_plugins").setLevel(logging.CRITICAL)
    return InMemoryStorage()


def tried() -> list[list[str]]:
    """The overrides of every run that the last search of this process tried, in order."""
    from optuna import load_study

    try:
        study = load_study(_STUDY, trials_of_this_process())
    except KeyError:  # it never began
        return []
    settings = [{**trial.params, **trial.user_attrs} for trial in study.trials]
    return [[f"{key}={value}" for key, value in setting.items()] for setting in settings]


def best_lines(runs: Sequence[Tried]) -> list[str]:
    """What a search found, and the command that shows it.

    Args:
        runs: with or without results.
    """
    found = ((number, objective(run.run_dir)) for number, run in enumerate(runs))
    scores = {number: score for number, score in found if score is not None}
    if not scores:
        return ["No run of the search was finished."]
    number = max(scores, key=lambda number: scores[number])  # the first of equals
    best, many = runs[number], "" if len(scores) == 1 else "s"
    return [
        f"Best of {len(scores)} run{many} by validation accuracy (observed labels): "
        f"{100 * scores[number]:.2f} %",
        f"  {shown(best.run_dir)}",
        f"  {shlex.join(best.overrides)}",
    ]
