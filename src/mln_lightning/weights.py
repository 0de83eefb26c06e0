"""Where the weights of samples come from."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mln_lightning import processes

_HIDDEN = 100


def weights_against(gradient: Tensor) -> Tensor:
    """Weights along the negative gradient, cut at 0 and scaled to the mean 1 over all processes.

    Ren et al., ICML 2018, Algorithm 1: the samples whose greater weight would lower the clean
    loss count, the others do not.

    Args:
        gradient: ``(B,)`` of the clean loss in each sample's weight; its scale does not matter.

    Returns:
        ``(B,)`` at least 0; all 0 if no sample of the whole batch would lower the clean loss.
    """
    wanted = (-gradient).clamp(min=0)
    # Divided by its largest entry first: a sum of tiny numbers may round to nothing.
    wanted = wanted / processes.largest(wanted).clamp(min=torch.finfo(wanted.dtype).tiny)
    number = wanted.new_full((), len(wanted))
    total, batch = processes.total(torch.stack([wanted.sum(), number]))
    weights: Tensor = wanted / (total.clamp(min=1.0) / batch)  # the total is 0, or at least 1
    return weights


class WeightNet(nn.Module):
    """A sample's loss → its weight: one hidden layer of 100 with ReLU, then a sigmoid.

    Shu et al., NeurIPS 2019: a monotone or any other weighting of losses can be learned.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(1, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, 1), nn.Sigmoid()
        )

    def forward(self, losses: Tensor) -> Tensor:
        """``(B,)`` losses, at least 0 → ``(B,)`` weights, 0…1."""
        # Under autocast too: half precision would save nothing and move the virtual step.
        with torch.autocast(losses.device.type, enabled=False):
            weights: Tensor = self.layers(losses[:, None])[:, 0]
        return weights
