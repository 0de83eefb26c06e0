"""Hydra's launchers and sweepers that come as plugins."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from omegaconf import DictConfig

from mln_lightning.errors import UserError

BASIC = "basic"  # Hydra's own launcher and sweeper: one run after the other, all combinations
_EXTRAS = {"launcher": "launchers", "sweeper": "sweeper"}


def prefer_files(conf: Path) -> None:
    """Let the files in ``conf/hydra`` stand for the options that plugins register.

    Of two options of one name Hydra 1.3 would merge both, with a warning, and refuse Optuna's.

    Args:
        conf: folder of the configurations.
    """
    Plugins.instance()  # finds the plugins, which register their options
    for path in (conf / "hydra").rglob("*.yaml"):
        *groups, name = path.relative_to(conf).parts
        options: dict[str, Any] = ConfigStore.instance().repo
        for group in groups:
            options = options.get(group, {})
        options.pop(name, None)


def chosen(hydra: DictConfig, *, sweep: bool) -> tuple[str, str]:
    """The options of ``hydra/launcher`` and ``hydra/sweeper``.

    Args:
        hydra: that node of a composed configuration.
        sweep: whether the command is a sweep.

    Raises:
        UserError: one is not installed, or the command is no sweep and would ignore it.
    """
    for kind, extra in _EXTRAS.items():
        option = hydra.runtime.choices[f"hydra/{kind}"]
        if option == BASIC:
            continue
        if not sweep:
            raise UserError(f"hydra/{kind}={option} is for sweeps; add -m")
        package = str(hydra[kind]["_target_"]).rpartition(".")[0]
        if package.startswith("hydra_plugins.") and not _exists(package):
            raise UserError(
                f'hydra/{kind}={option} is not installed; pip install "mln-lightning[{extra}]"'
            )
    choices = hydra.runtime.choices
    return str(choices["hydra/launcher"]), str(choices["hydra/sweeper"])


def _exists(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # not even its package
        return False
