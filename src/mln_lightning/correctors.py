"""Small networks that correct a label that is given."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mln_lightning.weights import WeightNet


class MixingShares(nn.Module):
    """Shares of three guesses at a label: the two small nets of MSLC.

    Wu et al., AAAI 2021: the share of the observed label is a function of its loss; of what is
    left, the earlier label gets a share that is a function of its own loss, the present prediction
    the rest.
    """

    def __init__(self) -> None:
        super().__init__()
        self.observed = WeightNet()
        self.earlier = WeightNet()

    def forward(self, logits: Tensor, labels: Tensor, earlier: Tensor) -> Tensor:
        """Shares ``(B, 3)`` of observed, earlier and present label, each row of sum 1.

        Args:
            logits: ``(B, C)`` present, detached here.
            labels: ``(B,)`` observed.
            earlier: ``(B, C)`` soft labels, of which the likeliest class counts.
        """
        logits = logits.detach()
        observed = self.observed(cross_entropy(logits, labels, reduction="none"))
        kept = self.earlier(cross_entropy(logits, earlier.argmax(dim=1), reduction="none"))
        rest = 1 - observed
        return torch.stack([observed, rest * kept, rest * (1 - kept)], dim=1)


def mixed(shares: Tensor, observed: Tensor, earlier: Tensor, present: Tensor) -> Tensor:
    """``(B, 3)`` shares and three times ``(B, C)`` label → their mix ``(B, C)``."""
    guesses = torch.stack([observed, earlier, present], dim=1)
    return (shares[:, :, None] * guesses).sum(dim=1)
