"""Loaders of whole batches, and images that stay on the device."""

from __future__ import annotations

import os
import signal

import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from mln_lightning.batch import UNKNOWN, Batch
from mln_lightning.data.parts import BatchSource, Partition
from mln_lightning.data.source import ImageArrays

_MOST_WORKERS = 8  # more than that rarely decode faster than one GPU trains
_SHARE = 0.5  # of a device's free memory that images may take


def device_of(trainer: Trainer | None) -> torch.device:
    """Where a trainer's batches go."""
    return torch.device("cpu") if trainer is None else trainer.strategy.root_device


def share_of(trainer: Trainer | None) -> tuple[int, int]:
    """Rank of this process among those that share the trainer's batches, and their number."""
    return (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)


def default_workers() -> int:
    """As many as this training process has cores, at most eight."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    beside = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # training processes of this machine
    return min(_MOST_WORKERS, max(1, cores // beside))


def check_batches(batch_size: int, meta_batch_size: int | None, num_workers: int | None) -> None:
    """Refuse sizes that no loader can have.

    Raises:
        ValueError: says which.
    """
    if min(batch_size, batch_size if meta_batch_size is None else meta_batch_size) < 1:
        raise ValueError(f"Batch sizes must be at least 1, got {batch_size} and {meta_batch_size}.")
    if num_workers is not None and num_workers < 0:
        raise ValueError(f"num_workers must not be negative, got {num_workers}.")


def check_batch_fits(batch_size: int, parts: Partition) -> None:
    """Refuse a batch that there are too few labelled training samples for.

    Raises:
        ValueError: says how many there are.
    """
    labelled = int((parts.train.labels != UNKNOWN).sum())
    if batch_size > labelled:
        raise ValueError(
            f"The batch size {batch_size} is larger than the training part, which has {labelled} "
            "labelled samples: lower batch_size, num_meta or num_val."
        )


def batch_loader(
    source: BatchSource,
    batches: Sampler[Tensor] | tuple[Tensor, ...],
    *,
    workers: int,
    device: torch.device,
) -> DataLoader[Batch]:
    """A loader that fetches one whole batch for each item of ``batches``.

    Args:
        source: the samples.
        batches: rows of each batch, ``(B,)`` int64.
        workers: processes that fetch; they live as long as the loader.
        device: where the batches will go; memory is pinned for a GPU.
    """
    return DataLoader(
        source,
        batch_size=None,
        sampler=batches,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device.type == "cuda" and workers > 0,
        worker_init_fn=_leave_interrupts_to_the_main_process,
    )


def place(parts: Partition, device: torch.device) -> None:
    """Move images that lie in memory to a GPU, once, if they fit; batches are then cut there.

    Args:
        parts: the sets; those that share their images go on sharing them.
        device: a CUDA device; nothing happens for any other.
    """
    if device.type != "cuda":
        return
    moved: dict[int, ImageArrays] = {}
    sources = {id(part.source): part.source for part in parts.named().values()}
    for source in sources.values():
        images = source.images
        if not isinstance(images, ImageArrays) or images.images.device.type == "cuda":
            continue
        if id(images) not in moved:
            free, _ = torch.cuda.mem_get_info(device)
            if images.images.nbytes > _SHARE * free:
                continue
            moved[id(images)] = images.to(device)
        source.images = moved[id(images)]


def _leave_interrupts_to_the_main_process(worker: int) -> None:
    """Ctrl-C reaches every process of a terminal; the main one finishes its step with its workers.

    Args:
        worker: number of this process.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
