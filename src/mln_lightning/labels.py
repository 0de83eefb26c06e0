"""Where soft labels come from."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from mln_lightning.batch import UNKNOWN


class LabelGenerator(nn.Module):
    """Frozen features → soft label: the single linear layer of MetaLabelNet.

    Algan & Ulusoy, IEEE TIP 2022: W ∈ R^{C×F} with bias, followed by a softmax.

    Args:
        feature_dim: F, at least 1.
        num_classes: C, at least 2.
        hidden_dim: units of a hidden layer with ReLU before it, at least 1; None = no such layer.

    Raises:
        ValueError: a size is out of range.
    """

    def __init__(self, feature_dim: int, num_classes: int, hidden_dim: int | None = None) -> None:
        if feature_dim < 1 or num_classes < 2:
            raise ValueError(
                "LabelGenerator needs feature_dim >= 1 and num_classes >= 2, "
                f"got {feature_dim} and {num_classes}."
            )
        if hidden_dim is not None and hidden_dim < 1:
            raise ValueError(f"hidden_dim must be 1 or more, or None, got {hidden_dim}.")
        super().__init__()
        self.hidden: nn.Module = nn.Identity()
        if hidden_dim is not None:
            self.hidden = nn.Sequential(nn.Linear(feature_dim, hidden_dim), nn.ReLU())
        self.linear = nn.Linear(hidden_dim or feature_dim, num_classes)

    def forward(self, features: Tensor) -> Tensor:
        """``(B, F)`` features → ``(B, C)`` log-probabilities."""
        # Under autocast too: half precision would save nothing and move the virtual step.
        with torch.autocast(features.device.type, enabled=False):
            logits = self.linear(self.hidden(features.to(self.linear.weight.dtype)))
            return torch.log_softmax(logits, dim=1)

    @torch.no_grad()
    def start_from(self, head: nn.Linear) -> None:
        """Copy a classifier's last layer, so that the first soft labels are its predictions.

        The published method starts at random; starting from the warm-up head keeps the classifier
        from imitating labels that mean nothing yet.

        Args:
            head: linear layer ``(F → C)``.

        Raises:
            ValueError: the layer has another shape.
        """
        if head.weight.shape != self.linear.weight.shape:
            raise ValueError(
                f"The head maps {head.in_features} features to {head.out_features} classes, the "
                f"label generator {self.linear.in_features} to {self.linear.out_features}."
            )
        self.linear.weight.copy_(head.weight)
        if head.bias is None:
            self.linear.bias.zero_()
        else:
            self.linear.bias.copy_(head.bias)


class LabelTable(nn.Module):
    """Label logits of every training sample, ŷ_i = softmax(row i): MSLG and PENCIL learn these.

    The rows start as sharpness · one-hot of the observed label, zeros (the uniform distribution)
    where there is none, and are a buffer: checkpoints carry them, no optimiser touches them.

    Args:
        labels: ``(N,)`` int64 observed labels, or ``UNKNOWN``.
        num_classes: C.
        sharpness: K of the papers, positive; 10 there.

    Raises:
        ValueError: the sharpness is not positive.
    """

    logits: Tensor

    def __init__(self, labels: Tensor, num_classes: int, *, sharpness: float = 10.0) -> None:
        if not sharpness > 0:
            raise ValueError(f"sharpness must be positive, got {sharpness}.")
        super().__init__()
        known = (labels != UNKNOWN).to(torch.float32)[:, None]
        rows = one_hot(labels.clamp(min=0), num_classes) * known
        self.register_buffer("logits", sharpness * rows)

    def rows(self, index: Tensor) -> Tensor:
        """``(B,)`` sample numbers → ``(B, C)`` label logits, a fresh leaf that requires grad."""
        return self.logits[index].requires_grad_()

    def log_soft(self, index: Tensor) -> Tensor:
        """``(B,)`` sample numbers → log-probabilities ``(B, C)`` of the soft labels."""
        return self.logits[index].log_softmax(dim=1)

    @torch.no_grad()
    def descend(self, index: Tensor, grad: Tensor, lr: float) -> None:
        """Rows ← rows − lr · grad.

        Args:
            index: ``(B,)`` int64 sample numbers, each once.
            grad: ``(B, C)``.
            lr: step size.
        """
        self.logits[index] -= lr * grad.to(self.logits.dtype)
