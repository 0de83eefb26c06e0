"""Fits in several real processes that share out every batch, or in one."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import torch

from tests.processes import PROCESSES, calm

Work = Callable[..., object]
"""Called in every process with its own arguments; what the first process returns is kept."""


def together(number: int, work: Work, *arguments: object, folder: Path) -> object:
    """What ``work(*arguments)`` returns in the first of ``number`` processes that train together.

    Args:
        number: of processes; 1 too is a process of its own.
        work: importable by name.
        arguments: picklable.
        folder: existing, for what they return.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    fleet = [
        PROCESSES.Process(target=_member, args=(rank, number, port, folder, work, arguments))
        for rank in range(number)
    ]
    for process in fleet:
        process.start()
    try:
        for process in fleet:
            process.join(timeout=240)
            assert process.exitcode == 0, f"a process ended with {process.exitcode}"
    finally:
        for process in fleet:
            process.kill()
    return torch.load(folder / "returned.pt", weights_only=False)


def _member(
    rank: int, number: int, port: int, folder: Path, work: Work, arguments: tuple[object, ...]
) -> None:
    calm()
    # What a launcher sets, by which Lightning knows that the processes exist already.
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "NODE_RANK": "0",
        "WORLD_SIZE": str(number),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    returned = work(*arguments)
    if rank == 0:
        torch.save(returned, folder / "returned.pt")
