"""Small networks that correct a label that is given."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from mln_lightning.weights import WeightNet

_EMBEDDING = 64
_HIDDEN = 128


class LabelCorrector(nn.Module):
    """Features and observed label → soft label: the label correction network of MLC.

    Zheng, Awadallah & Dumais, AAAI 2021: an embedding of 64 per label, joined with the features;
    two hidden layers of 128 with tanh; a softmax.

    Args:
        feature_dim: F, at least 1.
        num_classes: C, at least 2.
        skip: mix the observed label in, with a learned share that starts at one half. The authors
            advise it where few labels are wrong.

    Raises:
        ValueError: a size is out of range.
    """

    def __init__(self, feature_dim: int, num_classes: int, *, skip: bool = False) -> None:
        if feature_dim < 1 or num_classes < 2:
            raise ValueError(
                "LabelCorrector needs feature_dim >= 1 and num_classes >= 2, "
                f"got {feature_dim} and {num_classes}."
            )
        super().__init__()
        self.embedding = nn.Embedding(num_classes, _EMBEDDING)
        self.layers = nn.Sequential(
            nn.Linear(feature_dim + _EMBEDDING, _HIDDEN),
            nn.Tanh(),
            nn.Linear(_HIDDEN, _HIDDEN),
            nn.Tanh(),
            nn.Linear(_HIDDEN, num_classes),
        )
        self.share = nn.Parameter(torch.zeros(())) if skip else None  # before a sigmoid
        nn.init.xavier_uniform_(self.embedding.weight)
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_normal_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """``(B, F)`` features and ``(B,)`` observed labels → ``(B, C)`` probabilities."""
        embedded = self.embedding(labels)
        with torch.autocast(
            features.device.type, enabled=False
        ):  # half precision would save nothing
            logits = self.layers(torch.cat([features.to(embedded.dtype), embedded], dim=1))
            soft = torch.softmax(logits, dim=1)
        if self.share is None:
            return soft
        share = self.share.sigmoid()
        return share * one_hot(labels, soft.shape[1]) + (1 - share) * soft


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
