"""MetaLabelNet's epoch as the authors' code goes through it: its loaders around its step."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.published import PublishedStep
from mln_lightning.batch import Batch
from mln_lightning.data import ImageArrays

WORKERS = 2
HALF = (0.5, 0.5, 0.5)
_TO_TENSOR = (transforms.ToTensor(), transforms.Normalize(HALF, HALF))


class Pictures(Dataset[tuple[Tensor, int]]):
    """Images that are changed one at a time, each made a picture of PIL's first."""

    def __init__(self, images: ImageArrays, change: Callable[[Image.Image], Tensor]) -> None:
        self.pixels = images.images.permute(0, 2, 3, 1).contiguous().numpy()
        self.labels = images.labels.tolist()
        self.change = change

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        return self.change(Image.fromarray(self.pixels[row])), self.labels[row]


class PublishedLoop:
    """Two worker processes for the training images, none for the meta images, nothing shuffled.

    The loss and the soft labels are copied to the processor after every batch, to be recorded.

    Args:
        network: on the device where it is to run.
        train: images with observed labels.
        meta: images with clean ones, a batch of them at least.
        size: B of both batches.
    """

    def __init__(
        self, network: nn.Module, train: ImageArrays, meta: ImageArrays, size: int
    ) -> None:
        height = train.images.shape[-1]
        augmented = [
            transforms.RandomHorizontalFlip(),
            transforms.RandomVerticalFlip(),
            transforms.RandomCrop(height, padding=4),
        ]
        changed = transforms.Compose([*augmented, *_TO_TENSOR])
        self.train = DataLoader(Pictures(train, changed), size, num_workers=WORKERS)
        unchanged = transforms.Compose([*_TO_TENSOR])
        self.meta = DataLoader(Pictures(meta, unchanged), size, drop_last=True)
        self.size = size
        self.device = next(network.parameters()).device
        self.step = PublishedStep(network)
        self.soft_labels = np.zeros((len(train), self.step.generator.out_features))
        self._meta = self._endless()

    def epoch(self) -> float:
        """One pass over the training images; the mean loss."""
        losses = []
        for number, (images, labels) in enumerate(self.train):
            train = self._batch(images, labels)
            meta = Batch(*(column[: len(labels)] for column in next(self._meta)))
            losses.append(float(self.step({"train": train, "meta": meta})))
            first = number * self.size
            rows = slice(first, first + len(labels))
            self.soft_labels[rows] = self.step.soft_labels.cpu().numpy()
        return float(np.mean(losses))

    def _endless(self) -> Iterator[Batch]:
        while True:
            for images, labels in self.meta:
                yield self._batch(images, labels)

    def _batch(self, images: Tensor, labels: Tensor) -> Batch:
        index = torch.arange(len(labels))
        columns = (images, labels, torch.full_like(labels, -1), index)
        return Batch(*(column.to(self.device) for column in columns))
