"""TensorFloat-32, and what a user should know about the number formats of a run."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def use_tf32(tf32: bool | None) -> None:
    """Say whether NVIDIA GPUs from Ampere on may round the factors of float32 products to 10 bits.

    Args:
        tf32: for convolutions and matrix products; None = torch's own choice, which is convolutions
            only.
    """
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32 is not False


def format_lines(
    asked: str, used: str, tf32: bool | None, device: torch.device, skipped: int, steps: int
) -> Sequence[str]:
    """Sentences for the user, where the number formats gave rise to any.

    Args:
        asked: precision in the configuration.
        used: precision of the trainer, which falls back where the device lacks one.
        tf32: as in `use_tf32`.
        device: where the run computes.
        skipped: number of steps that overflowed.
        steps: number of all steps.
    """
    lines = []
    if used != asked:
        lines.append(f"precision={asked} needs a GPU; this run used {used}.")
    if tf32 and device.type != "cuda":
        lines.append(f"tf32=true did nothing: the run was on the {device.type}.")
    if skipped:
        lines.append(
            f"{skipped} of {steps} steps overflowed float16 and were skipped "
            "(train/skipped_steps in metrics.csv)."
        )
    return lines
