"""What happens to a batch once it is on the device."""

from __future__ import annotations

import torch

from mln_lightning.batch import UNKNOWN, Batch
from mln_lightning.data.augment import Augment, Normalize


def augmented(
    batch: Batch, augment: Augment, *, seed: int, epoch: int, spare_unlabelled: bool
) -> Batch:
    """Augment the images of a training batch.

    Args:
        batch: uint8 images.
        augment: what to do.
        seed: training seed.
        epoch: 0, 1, …
        spare_unlabelled: leave images without a label as they are.
    """
    images = augment(batch.images, batch.index, seed=seed, epoch=epoch)
    if spare_unlabelled:
        unlabelled = (batch.labels == UNKNOWN).view(-1, 1, 1, 1)
        images = torch.where(unlabelled, batch.images, images)
    return batch._replace(images=images)


def normalized(batch: Batch, normalize: Normalize, dtype: torch.dtype | str | None) -> Batch:
    """Images as the network wants them, ``(B, K, H, W)``; None = float32."""
    images = normalize(batch.images)
    # Lightning has converted inputs to the model's precision before, when these were bytes.
    return batch._replace(images=images.to(dtype) if isinstance(dtype, torch.dtype) else images)
