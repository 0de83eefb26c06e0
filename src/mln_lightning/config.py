"""From a command line to composed configurations, without importing torch.

Every leaf below a config group is an argument of the `_target_` above it, so only the root keys
need a type; they are the fields of `RunConfig`.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobRuntime, setup_globals
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import MISSING, DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from mln_lightning import plugins
from mln_lightning.combinations import combinations_of, new_values_first, ranges_of
from mln_lightning.diagnosis import explain
from mln_lightning.listing.describe import describe_arrays, describe_folder, describe_table
from mln_lightning.search import check_sweeper, examples

VERSION_BASE = "1.3"
CONFIG_NAME = "config"

# Overrides that a folder name need not tell: they are in its path already, or change no result
# but for rounding: a run may be continued on another number of processes.
_NOT_IN_HASH = frozenset(
    {
        *("dataset", "noise", "model", "rate", "seed"),
        *("ckpt_path", "overwrite", "download", "data_dir"),
        *("trainer.accelerator", "trainer.devices", "trainer.num_nodes", "trainer.strategy"),
    }
)


@dataclass
class RunConfig:
    """Names and types of the root keys; groups hold constructor arguments and stay untyped.

    Attributes:
        rate: requested probability of a wrong label, fraction in [0, 1); None where the noise has a
            rate of its own, or the labels are taken as they are.
        seed: of training: initial weights, order, augmentation.
        data_seed: of the data: splits and noise.
        data_dir: folder of downloaded data sets.
        download: whether a missing data set may be fetched.
        ckpt_path: a checkpoint file, or "last" for the run folder's own; None resumes if it can.
        overwrite: whether a finished run in the same folder is replaced.
        precision: Lightning's name of the number format.
        tf32: whether NVIDIA GPUs may compute float32 products in TensorFloat-32; None = torch's
            choice.
        channels_last: whether the networks' weights lie in memory as GPUs like it, channels last.
        compile: whether the pieces of a training step are compiled by `torch.compile`.
        num_meta: size of the meta set: a count, a share (0.1 or "10%"), or "20/class"; None = all
            trusted images.
    """

    rate: float | None = 0.4
    seed: int = 0
    data_seed: int = 0
    data_dir: str = "data"
    download: bool = False
    ckpt_path: str | None = None
    overwrite: bool = False
    precision: str = "32-true"
    tf32: bool | None = None
    channels_last: bool = False
    compile: bool = False
    num_meta: Any = None
    dataset: Any = MISSING
    noise: Any = MISSING
    model: Any = MISSING
    trainer: Any = MISSING
    callbacks: Any = None
    logger: Any = None


@dataclass(frozen=True)
class Job:
    """One composed run.

    Attributes:
        cfg: the configuration, all interpolations resolved.
        run_dir: where everything about the run is written.
        choices: config group → chosen option, such as {"noise": "asym"}; Hydra's own left out.
        overrides: what the command line changed, `hydra.*` excepted.
    """

    cfg: DictConfig
    run_dir: Path
    choices: dict[str, str]
    overrides: list[str]


@dataclass(frozen=True)
class Plan:
    """What a command line asks for.

    Attributes:
        jobs: in running order; of a search some examples, since it chooses its runs as it goes.
        sweep: whether the command is a sweep, even one of a single run.
        search: whether a sweeper other than Hydra's basic one chooses the runs.
        beside: whether a launcher other than Hydra's basic one gives runs processes of their own.
    """

    jobs: list[Job]
    sweep: bool
    search: bool = False
    beside: bool = False


def conf_dir() -> Path:
    """The packaged copy in a wheel, the repository's `conf/` in a checkout."""
    package = Path(__file__).resolve().parent
    packaged = package / "conf"
    return packaged if packaged.is_dir() else package.parents[1] / "conf"


def other_overrides(overrides: Sequence[str]) -> list[str]:
    """Those that change a result and that a run folder's path does not show, sorted.

    Of two overrides for one key the last counts; the way values are quoted does not matter.
    """
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    told = {o.get_key_element(): o.get_value_element_as_str() for o in parsed}
    return sorted(f"{key}={value}" for key, value in told.items() if key not in _NOT_IN_HASH)


def hash_suffix(overrides: Sequence[str]) -> str:
    """`-` and eight hex digits for the `other_overrides`; "" if there are none."""
    other = other_overrides(overrides)
    return "-" + hashlib.sha256("\n".join(other).encode()).hexdigest()[:8] if other else ""


def rate_suffix(rate: float | None) -> str:
    """`-0.4` for 0.4, "" for None."""
    return "" if rate is None else f"-{rate}"


ConfigStore.instance().store(name="schema", node=RunConfig)
OmegaConf.register_new_resolver("hash_suffix", hash_suffix, replace=True)
OmegaConf.register_new_resolver("rate_suffix", rate_suffix, replace=True)
OmegaConf.register_new_resolver("describe_folder", describe_folder, replace=True)
OmegaConf.register_new_resolver("describe_table", describe_table, replace=True)
OmegaConf.register_new_resolver("describe_arrays", describe_arrays, replace=True)


def compose(overrides: Sequence[str] = (), *, config_dir: Path | None = None) -> DictConfig:
    """The resolved configuration of one run, as `python -m mln_lightning.run` would see it.

    Args:
        overrides: `key=value` strings of the command line.
        config_dir: a folder of further config files (Hydra's `--config-dir`).

    Raises:
        UserError: an override that cannot be understood, with the nearest known name.
    """
    return plan(overrides, config_dir=config_dir).jobs[0].cfg


def plan(
    overrides: Sequence[str] = (),
    *,
    sweep: bool = False,
    config_dir: Path | None = None,
    check: Callable[[Job], None] = lambda job: None,
    found: Sequence[Sequence[str]] = (),
) -> Plan:
    """Compose every run that a command line asks for; nothing is written or started.

    Args:
        overrides: `key=value` strings of the command line.
        sweep: Hydra's `--multirun`; an experiment file may also ask for it (`hydra.mode`).
        config_dir: a folder of further config files (Hydra's `--config-dir`).
        check: called with each job as soon as it is composed; may refuse by raising.
        found: the overrides of each run that a search chose, once it has.

    Raises:
        UserError: an override that cannot be understood, with the nearest known name; a launcher
            or sweeper that is not installed.
    """
    loader = _config_loader(config_dir)
    tried = list(overrides)
    try:
        base = loader.load_configuration(
            CONFIG_NAME, tried, RunMode.MULTIRUN, validate_sweep_overrides=False
        )
        sweep = sweep or base.hydra.mode == RunMode.MULTIRUN
        launcher, sweeper = plugins.chosen(base.hydra, sweep=sweep)
        if not sweep:
            full = loader.load_configuration(CONFIG_NAME, tried, RunMode.RUN)
            job = _job(full, full.hydra.run.dir)
            check(job)
            return Plan([job], sweep=False)
        search = sweeper != plugins.BASIC
        if search:
            check_sweeper(base.hydra.sweeper)
        ranges = ranges_of(base)
        combinations = [list(run) for run in found]
        if not combinations:
            combinations = examples(ranges) if search else combinations_of(ranges)
        jobs: dict[int, Job] = {}
        for number in new_values_first(combinations):
            tried = combinations[number]
            full = loader.load_sweep_config(base, tried)
            jobs[number] = _job(full, f"{full.hydra.sweep.dir}/{full.hydra.sweep.subdir}")
            check(jobs[number])
        return Plan(
            [jobs[number] for number in sorted(jobs)],
            sweep=True,
            search=search,
            beside=launcher != plugins.BASIC,
        )
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise explain(error, tried, loader, CONFIG_NAME, sweep=sweep) from error


def current_job(cfg: DictConfig) -> Job:
    """The job Hydra is running now.

    Args:
        cfg: what Hydra handed to the task function.
    """
    hydra = HydraConfig.get()
    cfg = copy.deepcopy(cfg)
    OmegaConf.resolve(cfg)
    choices = {
        str(group): str(option)
        for group, option in hydra.runtime.choices.items()
        if option is not None and not str(group).startswith(("hydra/", "data@"))
    }
    # An optional choice that no folder of configs has was not composed.
    folders = [Path(source.path) for source in hydra.runtime.config_sources]
    for group in ("preset", "tuned"):
        if not any((folder / group / f"{choices.get(group)}.yaml").is_file() for folder in folders):
            choices.pop(group, None)
    return Job(cfg, Path(hydra.runtime.output_dir), choices, list(hydra.overrides.task))


def _config_loader(config_dir: Path | None) -> ConfigLoaderImpl:
    """The loader `@hydra.main` will use, so that both see the same files."""
    version.setbase(VERSION_BASE)
    setup_globals()
    JobRuntime.instance().set("name", "mln")
    search_path = create_config_search_path(str(conf_dir()))
    plugins.prefer_files(conf_dir())
    if config_dir is not None:
        search_path.prepend(
            provider="command-line",
            path=f"file://{config_dir.absolute()}",
            anchor=SearchPathQuery(provider="schema"),
        )
    return ConfigLoaderImpl(config_search_path=search_path)


def _job(full: DictConfig, run_dir: str) -> Job:
    """Resolve a composed configuration as Hydra would inside the job."""
    with read_write(full), open_dict(full):
        full.hydra.runtime.output_dir = str(Path(run_dir).absolute())
        full.hydra.job.id = full.hydra.job.num = 0  # known only when the job starts
        HydraConfig.instance().set_config(full)  # what ${hydra:…} refers to
        try:
            job_cfg = copy.deepcopy(full)
            with read_write(job_cfg), open_dict(job_cfg):
                del job_cfg["hydra"]
            return current_job(job_cfg)
        finally:
            HydraConfig.instance().cfg = None
