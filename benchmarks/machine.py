"""Where a measurement was taken, and with what."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Mapping
from pathlib import Path

import torch

from mln_lightning.results import commit


def accelerator() -> torch.device:
    # Without a driver a CUDA build still names its accelerator.
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return found or torch.device("cpu")


def about(device: torch.device) -> dict[str, str]:
    """Hardware, how busy it was before, versions, date and commit."""
    return {
        "device": str(device),
        "machine": _name(device),
        "threads": str(torch.get_num_threads()),
        "load": f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} cores",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
        "commit": commit() or "unknown",
    }


def sentence(known: Mapping[str, str]) -> str:
    """What `about` knows, for a reader."""
    threads = "1 thread" if known["threads"] == "1" else f"{known['threads']} threads"
    return (
        f"{known['machine']}, {threads}, load before {known['load']}, torch {known['torch']}, "
        f"{known['date']}, commit {known['commit']}"
    )


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return str(device)
    processors = Path("/proc/cpuinfo")
    if processors.exists():
        for line in processors.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
