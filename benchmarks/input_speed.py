"""Speed of the input pipeline: whole batches as tensors, or one PIL image after another."""

from __future__ import annotations

from collections.abc import Callable

import torch
from PIL import Image
from torch import Tensor
from torchvision import transforms

from benchmarks.timing import take_turns
from mln_lightning.batch import UNKNOWN
from mln_lightning.data import ImageArrays, RandomCropFlip
from mln_lightning.data.augment import Normalize
from mln_lightning.data.partition import BatchSource

OURS, PER_SAMPLE = "whole batches (ours)", "image by image (PIL)"
MEAN = STD = (0.5, 0.5, 0.5)


def measure_input(
    shape: tuple[int, int, int], size: int, device: torch.device, seconds: float = 4.0
) -> dict[str, list[float]]:
    """Seconds per batch of B = ``size`` augmented and normalised images, for both ways.

    On one thread, like a worker of a loader.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    draws = torch.Generator().manual_seed(0)
    pool = torch.randint(0, 256, (10_000, *shape), dtype=torch.uint8, generator=draws)
    rows = torch.randperm(len(pool), generator=draws)[:size]
    whole, one_by_one = _whole(pool, rows, device), _image_by_image(pool, rows, device)
    whole(), one_by_one()
    times = take_turns({OURS: whole, PER_SAMPLE: one_by_one}, seconds, device)
    torch.set_num_threads(threads)
    return times


def _whole(pool: Tensor, rows: Tensor, device: torch.device) -> Callable[[], Tensor]:
    unknown = torch.full((len(pool),), UNKNOWN)
    source = BatchSource(ImageArrays(pool, torch.zeros_like(unknown)), unknown, unknown)
    augment, normalize = RandomCropFlip(4), Normalize(MEAN, STD)

    def batch() -> Tensor:
        found = source[rows]
        images, index = found.images.to(device), found.index.to(device)
        return normalize(augment(images, index, seed=0, epoch=0))

    return batch


def _image_by_image(pool: Tensor, rows: Tensor, device: torch.device) -> Callable[[], Tensor]:
    """The transforms of the published code, in its order."""
    arrays = pool.permute(0, 2, 3, 1).numpy()
    transform = transforms.Compose(
        [
            transforms.RandomHorizontalFlip(),
            transforms.RandomVerticalFlip(),
            transforms.RandomCrop(pool.shape[-1], 4),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )

    def batch() -> Tensor:
        images = [transform(Image.fromarray(arrays[row])) for row in rows.tolist()]
        return torch.stack(images).to(device)

    return batch
