"""Ridge regression in closed form, differentiable in its targets."""

from __future__ import annotations

import torch
from torch import Tensor


def ridge(features: Tensor, targets: Tensor, penalty: float) -> Tensor:
    """W = (FᵀF/n + λI)⁻¹ FᵀY/n ``(F, C)``, without intercept.

    It minimises ‖FW − Y‖²/n + λ‖W‖²: a penalty for each sample, so that λ means the same for any n.

    Args:
        features: F, ``(n, F)``.
        targets: Y, ``(n, C)``; gradients reach these.
        penalty: λ, positive.
    """
    gram = features.T @ features / len(features)
    gram.diagonal().add_(penalty)
    weights: Tensor = torch.linalg.solve(gram, features.T @ targets / len(features))
    return weights
