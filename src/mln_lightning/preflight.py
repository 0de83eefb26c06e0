"""What can be known to be impossible before torch is imported or a data set is read."""

from __future__ import annotations

import os
import sys
from dataclasses import fields
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mln_lightning.config import Job, RunConfig
from mln_lightning.diagnosis import REQUIRED_GROUPS, did_you_mean
from mln_lightning.errors import UserError
from mln_lightning.launch import devices_of, number_started, started_by_others
from mln_lightning.sizes import SampleSize

PRECISIONS = ("32-true", "64-true", "bf16-mixed", "16-mixed")  # those that are tested
STRATEGIES = ("auto", "ddp")
_OTHER_STRATEGIES = {  # part of a name → why not
    "fsdp": ": the virtual update needs every process to have the whole of the parameters",
    "deepspeed": ": the virtual update needs every process to have the whole of the parameters",
    "spawn": ": the program starts its processes itself",
    "fork": ": the program starts its processes itself",
    "notebook": ": the program starts its processes itself",
    "find_unused": ": every parameter of the network is used",
}
_PLACE = ("NODE_RANK", "MASTER_ADDR", "MASTER_PORT")
_SIZES = ("num_val", "num_test", "num_unlabelled", "num_train")
_OWN_RATE = {  # noise that takes no rate, and why
    "none": "it adds no noise",
    "human": "human labels have the rate they have",
    "recorded": "recorded labels have the rate they have",
    "matrix": "the rate is that of the matrix",
}


def check(job: Job) -> None:
    """Refuse values that no run can work with.

    Raises:
        UserError: naming the key, its value, and what is allowed.
    """
    cfg = job.cfg
    _check_root(cfg)
    _check_rate(cfg.rate, job.choices.get("noise"))
    for key in ("seed", "data_seed"):
        if cfg[key] < 0:
            raise UserError(f"{key}={cfg[key]} is negative; seeds are 0 or more")
    if cfg.precision not in PRECISIONS:
        raise UserError(
            f"precision={cfg.precision} is not supported{did_you_mean(cfg.precision, PRECISIONS)} "
            f"one of {', '.join(PRECISIONS)}"
        )
    _check_processes(cfg)
    for group in REQUIRED_GROUPS:
        left_out = OmegaConf.is_missing(cfg, group) or cfg[group] is None
        if left_out and not (group == "noise" and job.choices.get("noise") == "none"):
            raise UserError(f"no {group} is chosen; every run needs {group}=<option>")
    _check_sizes(cfg)
    _check_flips(cfg)
    _check_transition(job)


def _check_processes(cfg: DictConfig) -> None:
    """Processes of the one kind there is, as many as were started if others have."""
    strategy = str(OmegaConf.select(cfg, "trainer.strategy", default="auto"))
    if strategy not in STRATEGIES:
        why = next((why for name, why in _OTHER_STRATEGIES.items() if name in strategy), "")
        raise UserError(
            f"trainer.strategy={strategy} is not supported{why}; use trainer.strategy=ddp"
        )
    if OmegaConf.select(cfg, "trainer.sync_batchnorm", default=False):
        raise UserError(
            "trainer.sync_batchnorm=true brings a batch-norm without forward derivative; leave it "
            "out, the program synchronises batch-norm itself"
        )
    nodes = OmegaConf.select(cfg, "trainer.num_nodes", default=1)
    if not isinstance(nodes, int) or nodes < 1:
        raise UserError(f"trainer.num_nodes={nodes} is no number of machines; use 1 or more")
    try:
        devices = devices_of(cfg)
    except (TypeError, ValueError):
        raise UserError(
            f"trainer.devices={OmegaConf.select(cfg, 'trainer.devices')} names no devices; use a "
            "number from 1, a list such as [0,1], or auto"
        ) from None
    several = nodes > 1 or devices is None or devices > 1
    if several and sys.platform == "win32":
        raise UserError("several processes need Linux or macOS; use trainer.devices=1")
    if started_by_others():
        _check_started(devices, nodes)
    elif nodes > 1:
        _check_place(nodes)


def _check_started(devices: int | None, nodes: int) -> None:
    """The launcher has started a process for each device."""
    started = number_started()
    if devices is not None and started not in (None, devices * nodes):
        raise UserError(
            f"{started} processes were started, and the run asks for {devices * nodes}; set "
            "trainer.devices to the processes of each machine, and trainer.num_nodes to the "
            "machines"
        )
    slurm = "LOCAL_RANK" not in os.environ
    if slurm and os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive"):
        raise UserError(
            f"Lightning leaves a SLURM job named {os.environ['SLURM_JOB_NAME']} to itself; start "
            "the processes with srun --job-name=train"
        )


def _check_place(nodes: int) -> None:
    """Each machine is told which one it is, and where the first one is."""
    missing = [key for key in _PLACE if key not in os.environ]
    if missing:
        raise UserError(
            f"trainer.num_nodes={nodes} needs the environment variables {', '.join(_PLACE)} on "
            f"each machine, and {', '.join(missing)} is not set; set it, or start the processes "
            "with torchrun or srun"
        )
    rank = os.environ["NODE_RANK"]
    if rank not in map(str, range(nodes)):
        raise UserError(
            f"NODE_RANK={rank} is no rank of {nodes} machines; they are 0 to {nodes - 1}"
        )


def _check_root(cfg: DictConfig) -> None:
    """`+key=value` and config files can add root keys that nothing would read."""
    known = [field.name for field in fields(RunConfig)]
    for key in cfg:
        if key not in known:
            raise UserError(
                f"unknown root key {key!r}{did_you_mean(str(key), known)} "
                f"root keys: {', '.join(known)}"
            )


def _check_rate(rate: float | None, noise: str | None) -> None:
    own_rate = noise in _OWN_RATE
    if rate is None and not own_rate:
        raise UserError(f"rate is not set; noise={noise} needs one, such as rate=0.4")
    if rate is not None and not 0 <= rate < 1:  # false for NaN too
        raise UserError(f"rate={rate} is outside [0, 1); it is the fraction of wrong labels")
    if rate is not None and own_rate:
        raise UserError(
            f"noise={noise} with rate={rate} contradict each other: {_OWN_RATE[str(noise)]}; leave "
            "rate out, or choose another noise"
        )


def _check_sizes(cfg: DictConfig) -> None:
    """The meta set holds every class and leaves something to train on."""
    sizes = {key: _size(f"dataset.{key}", _select(cfg, key)) for key in _SIZES}
    meta = _size("num_meta", cfg.num_meta)
    classes, pool = _select(cfg, "info.num_classes"), _select(cfg, "info.num_train")
    if classes is None or meta is None or _select(cfg, "meta_list") is not None:
        return
    if (meta.unit == "images" and meta.amount < classes) or meta.amount == 0:
        raise UserError(
            f"num_meta={cfg.num_meta} is too small: {_name(cfg)} has {classes} classes and the "
            f"meta set needs an image of each; use num_meta={classes} or more"
        )
    if pool is None or _select(cfg, "meta_from") == "test":
        return
    val = sizes["num_val"]
    num_val = 0 if val is None else val.count(pool, classes)
    if meta.count(pool, classes) + num_val >= pool:
        raise UserError(
            f"num_meta={cfg.num_meta} is too large: {_name(cfg)} has {pool} images, {num_val} of "
            f"them for validation; use num_meta={pool - num_val - 1} or less"
        )


def _size(name: str, value: Any) -> SampleSize | None:
    try:
        return None if value is None else SampleSize.parse(name, value)
    except ValueError as error:
        raise UserError(str(error)) from error


def _check_flips(cfg: DictConfig) -> None:
    """The noise map names only classes that exist."""
    classes = _select(cfg, "info.num_classes")
    flips = OmegaConf.select(cfg, "noise.transition.flips", default=None)
    if classes is None or not flips:
        return
    worst = max(int(label) for pair in flips.items() for label in pair)
    if worst >= classes:
        raise UserError(
            f"the noise map names class {worst}, but {_name(cfg)} has {classes} classes "
            f"(0 to {classes - 1}); correct noise.transition.flips"
        )


def _check_transition(job: Job) -> None:
    """A method that is told the noise's transition matrix needs a noise that has one."""
    if OmegaConf.select(job.cfg, "model.transition", default="estimated") is None:
        raise UserError(
            f"model={job.choices.get('model')} is told the transition matrix of the noise, and "
            f"noise={job.choices.get('noise')} has none; choose a noise with one, such as "
            "noise=sym, or a method that estimates it, such as model=forward"
        )


def _select(cfg: DictConfig, key: str) -> Any:
    """A key of the data set, or None: a user's own data set need not have it."""
    return OmegaConf.select(cfg, f"dataset.{key}", default=None)


def _name(cfg: DictConfig) -> str:
    return str(_select(cfg, "info.name") or "the data set")
