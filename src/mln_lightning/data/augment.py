"""Batched image transforms on whatever device the batch is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from mln_lightning.seeding import derive_seed, hashed_bits

_AUGMENT = 3  # stream of the seed, beside those of the samplers
_FIELD = 20  # bits of one draw


class Augment(Protocol):
    """Changes training images at random, but the same sample alike in the same epoch."""

    def __call__(self, images: Tensor, index: Tensor, *, seed: int, epoch: int) -> Tensor:
        """``(B, K, H, W)`` uint8 and the ``(B,)`` rows of the samples → ``(B, K, H, W)`` uint8."""
        ...


class Normalize:
    """uint8 images → float32 with mean 0 and deviation 1 in each channel.

    Args:
        mean: K channel means on the scale 0…1.
        std: K channel deviations, positive.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self.mean = tuple(mean)
        self.std = tuple(std)

    def __call__(self, images: Tensor) -> Tensor:
        """``(B, K, H, W)`` uint8 → ``(B, K, H, W)`` float32."""
        mean, scale = torch.tensor([self.mean, self.std]).mul_(255)
        # Made on the host and not waited for: numbers made on a device keep the host waiting.
        numbers = torch.stack([mean, scale.reciprocal_()]).view(2, -1, 1, 1)
        mean, scale = numbers.to(images.device, non_blocking=True)
        return images.float().sub_(mean).mul_(scale)


@dataclass(frozen=True)
class RandomCropFlip:
    """Shift an image by up to ``padding`` pixels each way, and mirror every second one.

    The draws of a sample depend on (seed, epoch, index) only: not on the batch it is in, the worker
    that loads it, the device, or what ran before.

    Attributes:
        padding: P, pixels added on each side before a window of the old size is cut out; 0 = none.
        flip: mirror left and right with probability 1/2.
        mode: what the border shows, ``zeros`` or the image reflected at its edge (P < H, W).

    Raises:
        ValueError: the padding is negative, or the mode unknown.
    """

    padding: int
    flip: bool = True
    mode: Literal["zeros", "reflect"] = "zeros"

    def __post_init__(self) -> None:
        if self.padding < 0:
            raise ValueError(f"The padding must not be negative, got {self.padding}.")
        if self.mode not in ("zeros", "reflect"):
            raise ValueError(f"The padding mode is 'zeros' or 'reflect', got {self.mode!r}.")

    def __call__(self, images: Tensor, index: Tensor, *, seed: int, epoch: int) -> Tensor:
        """Transform a batch.

        Args:
            images: ``(B, K, H, W)`` uint8; not changed.
            index: ``(B,)`` int64 row of each sample.
            seed: training seed.
            epoch: 0, 1, …

        Returns:
            ``(B, K, H, W)`` uint8.
        """
        dy, dx, mirrored = self.draws(index, seed=seed, epoch=epoch)
        if self.padding:
            height, width = images.shape[2:]
            windows = self._pad(images).unfold(2, height, 1).unfold(3, width, 1)
            images = windows[torch.arange(len(images), device=images.device), :, dy, dx]
        if self.flip:
            images = torch.where(mirrored.view(-1, 1, 1, 1), images.flip(-1), images)
        return images

    def draws(self, index: Tensor, *, seed: int, epoch: int) -> tuple[Tensor, Tensor, Tensor]:
        """What happens to each sample.

        Args:
            index: ``(B,)`` int64 row of each sample.
            seed: training seed.
            epoch: 0, 1, …

        Returns:
            Top and left edge of the window in the padded image, ``(B,)`` int64 in 0…2P, and
            whether it is mirrored, ``(B,)`` bool.
        """
        bits = hashed_bits(derive_seed(seed, _AUGMENT, epoch), index)
        fields = [(bits >> (_FIELD * i)) & ((1 << _FIELD) - 1) for i in range(3)]
        choices = 2 * self.padding + 1
        dy, dx = ((f * choices) >> _FIELD for f in fields[:2])
        return dy, dx, fields[2] >> (_FIELD - 1) == 1

    def _pad(self, images: Tensor) -> Tensor:
        if self.mode == "zeros":
            return F.pad(images, (self.padding,) * 4)
        rows, columns = (_reflected(size, self.padding, images.device) for size in images.shape[2:])
        return images.index_select(2, rows).index_select(3, columns)


def _reflected(size: int, padding: int, device: torch.device) -> Tensor:
    """Source positions of a line of ``size`` pixels with ``padding`` more at both ends."""
    positions = torch.arange(-padding, size + padding, device=device).abs()
    return (size - 1) - ((size - 1) - positions).abs()
