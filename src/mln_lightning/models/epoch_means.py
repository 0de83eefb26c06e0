"""Means over an epoch, and a count, that a checkpoint in mid-epoch carries on."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, SumMetric

from mln_lightning.batch import StepOutput


class EpochMeans(nn.Module):
    """Sums of losses since the start of the epoch, and the first step whose loss was not finite.

    Nothing here waits for the device but `compute` and `bad_step`.
    """

    first_bad_step: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.means = nn.ModuleDict()
        for name in ("train/loss", "meta/loss", "meta/grad_norm"):
            # Looking for NaN would wait for the device; `bad_step` names it later. Values are those
            # of all processes already.
            self.means[name] = MeanMetric(nan_strategy="disable", sync_on_compute=False)
        self.means["train/skipped_steps"] = SumMetric(sync_on_compute=False)
        for name in self.means:
            self._mean(name).persistent(True)
        self.register_buffer("first_bad_step", torch.tensor(-1), persistent=False)

    def _mean(self, name: str) -> MeanMetric | SumMetric:
        metric = self.means[name]
        assert isinstance(metric, MeanMetric | SumMetric)
        return metric

    def update(self, name: str, value: Tensor) -> None:
        """Add a value ``()`` to a mean, or to the count ``train/skipped_steps``."""
        self._mean(name).update(value)

    def record(self, output: StepOutput, step: int) -> None:
        """Add the losses of a step, counted from 0."""
        if "loss" not in output:
            return
        self.update("train/loss", output["loss"])
        bad = ~torch.isfinite(output["loss"])
        if "meta_loss" in output:
            self.update("meta/loss", output["meta_loss"])
            bad = bad | ~torch.isfinite(output["meta_loss"])
        # Latched on the device: reading it here would make the host wait for every step.
        here = torch.where(bad, step, -1)
        self.first_bad_step = torch.where(self.first_bad_step < 0, here, self.first_bad_step)

    def bad_step(self) -> int | None:
        """The first step whose loss was NaN or infinite, counted from 0; waits for the device."""
        step = int(self.first_bad_step)
        return step if step >= 0 else None

    def compute(self) -> dict[str, Tensor]:
        """The means of the epoch by name, of what was updated; then starts anew."""
        updated = [name for name in self.means if self._mean(name).update_called]
        found = {name: self._mean(name).compute() for name in updated}
        for name in self.means:
            self._mean(name).reset()
        return found
