"""What happens to a batch once it is on the device."""

from __future__ import annotations

import torch
from torch import Tensor

from mln_lightning.batch import UNKNOWN, Batch, TrainBatch
from mln_lightning.data.augment import Augment, Normalize
from mln_lightning.seeding import derive_seed

_VIEW = 7  # stream of the seed for further views, beside those of the samplers and of augmentation


class Transfer:
    """Augments and normalises batches, and makes further views of the last training batch.

    Args:
        normalize: uint8 images → what the network takes.
        augment: of training images; None = none.
        seed: training seed.
        spare_unlabelled: leave training images without a label as they are.
    """

    def __init__(
        self, normalize: Normalize, augment: Augment | None, *, seed: int, spare_unlabelled: bool
    ) -> None:
        self.normalize = normalize
        self.augment = augment
        self.seed = seed
        self.spare_unlabelled = spare_unlabelled
        self._last: tuple[Batch, int | None, torch.dtype | None] | None = None

    def batch(self, batch: Batch, dtype: torch.dtype | None) -> Batch:
        """Normalised images, never augmented; None = float32."""
        return batch._replace(images=self._normalized(batch.images, dtype))

    def train(
        self, batch: TrainBatch, *, epoch: int | None, dtype: torch.dtype | None
    ) -> TrainBatch:
        """Augmented and normalised training images, normalised meta images.

        Args:
            batch: uint8 images.
            epoch: 0, 1, …; None = not augmented, there is no training.
            dtype: of the images; None = float32.
        """
        train = batch["train"]
        self._last = train, epoch, dtype
        images = self._normalized(self._augmented(train, self.seed, epoch), dtype)
        return TrainBatch(
            train=train._replace(images=images), meta=self.batch(batch["meta"], dtype)
        )

    def view(self, index: Tensor, number: int) -> Tensor:
        """Samples of the last training batch, augmented anew.

        Args:
            index: ``(n,)`` int64 rows of the full training set, all in that batch.
            number: 1, 2, …; the same number gives the same view in the same epoch, 0 the images the
                step was given.

        Returns:
            ``(n, K, H, W)`` normalised.

        Raises:
            RuntimeError: there was no training batch yet, or a sample is not in it.
        """
        if self._last is None:
            raise RuntimeError("There is no training batch yet of which to make another view.")
        batch, epoch, dtype = self._last
        found = batch.index == index[:, None]
        rows = found.int().argmax(dim=1)
        if len(index) and batch.index.device.type == "cpu" and not bool(found.any(dim=1).all()):
            raise RuntimeError("Another view was asked of samples that are not in the batch.")
        seed = derive_seed(self.seed, _VIEW, number) if number else self.seed
        chosen = Batch(*(column[rows] for column in batch))
        return self._normalized(self._augmented(chosen, seed, epoch), dtype)

    def _augmented(self, batch: Batch, seed: int, epoch: int | None) -> Tensor:
        if self.augment is None or epoch is None:
            return batch.images
        images = self.augment(batch.images, batch.index, seed=seed, epoch=epoch)
        if self.spare_unlabelled:
            unlabelled = (batch.labels == UNKNOWN).view(-1, 1, 1, 1)
            images = torch.where(unlabelled, batch.images, images)
        return images

    def _normalized(self, images: Tensor, dtype: torch.dtype | None) -> Tensor:
        # Lightning has converted inputs to the model's precision before, when these were bytes.
        return self.normalize(images).to(dtype or torch.float32)
