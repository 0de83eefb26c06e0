"""MixMatch's parts as pure functions (Berthelot et al., NeurIPS 2019), as DivideMix uses them."""

from __future__ import annotations

import torch
from torch import Tensor

from mln_lightning.seeding import beta


def sharpen(probabilities: Tensor, temperature: float) -> Tensor:
    """p_c^(1/T) / Σ p^(1/T): T < 1 makes a soft label more certain, T = 1 leaves it.

    Args:
        probabilities: ``(B, C)``.
        temperature: T, positive.
    """
    return (probabilities.log() / temperature).softmax(dim=1)


def mixup(
    images: Tensor, soft: Tensor, alpha: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Blend every sample with another one, of which it keeps the smaller part.

    λ' = max(λ, 1 − λ) with one λ ~ Beta(α, α) for all; x' = λ' x + (1 − λ') x[π] with a random
    permutation π, and the same for the soft labels.

    Args:
        images: ``(n, K, H, W)``.
        soft: ``(n, C)`` probabilities.
        alpha: α, positive.
        generator: of the CPU; gives λ, then π.
    """
    drawn = beta(alpha, generator)
    share = max(drawn, 1 - drawn)
    other = torch.randperm(len(images), generator=generator).to(images.device, non_blocking=True)
    return (
        share * images + (1 - share) * images[other],
        share * soft + (1 - share) * soft[other],
    )


def mixmatch_loss(
    logits: Tensor, soft: Tensor, labelled: Tensor, *, unlabelled_weight: float
) -> Tensor:
    """L_X + λ_u · L_U: cross-entropy where labels are trusted, squared distance elsewhere.

    L_U is a mean over samples and classes: the values of λ_u that are in use belong to that.

    Args:
        logits: ``(n, C)``.
        soft: ``(n, C)`` probabilities.
        labelled: ``(n,)`` bool; either kind may be absent, and then adds nothing.
        unlabelled_weight: λ_u, at least 0.
    """
    log_p = logits.log_softmax(dim=1)
    fit = -(soft * log_p).sum(dim=1)
    distance = (log_p.exp() - soft).square().mean(dim=1)
    return _mean(fit, labelled) + unlabelled_weight * _mean(distance, ~labelled)


def _mean(values: Tensor, among: Tensor) -> Tensor:
    return torch.where(among, values, 0).sum() / among.sum().clamp(min=1)
