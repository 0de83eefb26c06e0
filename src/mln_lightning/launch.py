"""Which processes a run needs, and where they come from.

A run on several devices has one process for each. Where nobody has started them (torchrun and srun
do), the process of the command line starts those of its machine, and trains nothing itself.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping

from omegaconf import DictConfig, ListConfig, OmegaConf

from mln_lightning.config import Job
from mln_lightning.errors import RunStopped
from mln_lightning.failure import Failure, ProcessFailedError
from mln_lightning.files import shown
from mln_lightning.folders import LAST_CHECKPOINT
from mln_lightning.supervise import supervise

_RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID")
# By these Lightning would take a process of ours for one of SLURM's.
_NOT_OURS = ("RANK", "GROUP_RANK", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID")


def first_process() -> bool:
    """Whether no other process of the same run has a lower rank."""
    return all(os.environ.get(name, "0") == "0" for name in _RANKS)


def started_by_others() -> bool:
    """Whether a launcher such as torchrun or srun has started this process and its peers."""
    return "LOCAL_RANK" in os.environ or int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1


def number_started() -> int | None:
    """How many processes the launcher has started, if it tells."""
    told = os.environ.get("WORLD_SIZE" if "LOCAL_RANK" in os.environ else "SLURM_STEP_NUM_TASKS")
    return None if told is None else int(told)


def devices_of(cfg: DictConfig) -> int | None:
    """Devices a run asks for on each machine, a process each; None for all that there are.

    Args:
        cfg: whole configuration.

    Raises:
        ValueError: ``trainer.devices`` is no number, list or word that could mean devices.
    """
    asked = OmegaConf.select(cfg, "trainer.devices", default=1)
    if isinstance(asked, ListConfig):
        count = len({int(device) for device in asked})
    elif isinstance(asked, str) and "," in asked:
        count = len({int(device) for device in asked.strip(", ").split(",")})
    elif asked in ("auto", "-1", -1):
        return None
    else:
        count = int(asked)
    if count < 1:
        raise ValueError(f"there are no {count} devices")
    return count


def nodes_of(cfg: DictConfig) -> int:
    """Machines a run asks for."""
    return int(OmegaConf.select(cfg, "trainer.num_nodes", default=1))


def processes_to_start(cfg: DictConfig) -> int:
    """Processes that this one has to start: 0 where it can train alone, or others exist already."""
    if started_by_others():
        return 0
    here = devices_of(cfg)
    if here is None:
        here = _devices_here(str(OmegaConf.select(cfg, "trainer.accelerator", default="auto")))
    return here if here * nodes_of(cfg) > 1 else 0


def _devices_here(accelerator: str) -> int:
    if accelerator not in ("auto", "gpu", "cuda"):
        return 1
    import torch

    return max(1, torch.cuda.device_count())


def launch(job: Job, count: int) -> None:
    """Train on processes of this machine, and end when all have.

    Args:
        job: to run.
        count: processes to start here, at least 1.

    Raises:
        ProcessFailedError: one failed or was killed.
        RunStopped: a signal stopped the run.
    """
    checkpoint = job.run_dir / LAST_CHECKPOINT
    environments = environments_of(count, nodes_of(job.cfg))
    try:
        supervise([sys.executable, "-m", "mln_lightning.worker"], environments, job)
    except RunStopped as stopped:
        last = checkpoint if checkpoint.exists() else None  # it may be newer than the signal
        raise RunStopped(stopped.signum, last) from None
    except ProcessFailedError as failed:
        failure = failed.failure
        if failure.sentence is None or failure.exit_code == 2:
            raise
        then = (
            f"The same command continues from {shown(checkpoint)}."
            if checkpoint.exists()
            else "There is no checkpoint yet; the same command starts anew."
        )
        raise ProcessFailedError(Failure(f"{failure.sentence} {then}", failure.trace, 1)) from None


def environments_of(count: int, nodes: int) -> dict[int, Mapping[str, str]]:
    """Rank → environment variables of each process of this machine, as Lightning reads them.

    Args:
        count: processes here.
        nodes: machines, at least 1; of several each is told its place by ``NODE_RANK``,
            ``MASTER_ADDR`` and ``MASTER_PORT``.
    """
    common = {name: value for name, value in os.environ.items() if name not in _NOT_OURS}
    common["PYTHONPATH"] = os.pathsep.join(path or os.getcwd() for path in sys.path)
    common |= {"WORLD_SIZE": str(count * nodes), "LOCAL_WORLD_SIZE": str(count)}
    common.setdefault("NODE_RANK", "0")
    if nodes == 1:
        common |= {"NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
    common.setdefault("OMP_NUM_THREADS", str(max(1, _cores() // count)))
    first = int(common["NODE_RANK"]) * count
    return {first + local: {**common, "LOCAL_RANK": str(local)} for local in range(count)}


def _free_port() -> int:
    """A port nobody listens on, at least for now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
