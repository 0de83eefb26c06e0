"""Strong augmentation in batches, in the way of RandAugment."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mln_lightning.data.augment import Augment
from mln_lightning.data.image_ops import Amounts, recolour, warp
from mln_lightning.seeding import derive_seed, hashed_bits

_STRONG = 5  # stream of the seed, beside those of the samplers and of crop and flip
_KINDS = len(Amounts._fields)
_SIGNED, _GRADUAL = 9, 11  # the first nine kinds go either way, the last three are on or off
_FIELD = 20  # bits of one draw


@dataclass(frozen=True)
class StrongAugment:
    """Change each image by a few operations of random kind and strength, then cut a hole.

    The fourteen kinds of RandAugment (Cubuk et al., NeurIPS 2020, section 3) with its strongest
    settings. Four things differ, so that a whole batch is changed at once: the kinds of one image
    are never the same, they act in one order (colours, levels, place), each strength is drawn
    anew between nothing and ``magnitude`` (as in FixMatch, Sohn et al., NeurIPS 2020), and shears
    are about the centre.

    The draws of a sample depend on (seed, epoch, index) only: not on the batch it is in, the worker
    that loads it, the device, or what ran before.

    Attributes:
        num_ops: N, operations for each image, 0…14.
        magnitude: the most of any operation, 0…1; 1 = the strongest setting of the paper.
        cutout: side of a square hole with its centre anywhere in the image, in pixels (DeVries &
            Taylor, arXiv:1708.04552); 0 = none.
        fill: level of the hole, and of what comes in from outside, 0…255.
        first: augmentation before this one, such as `RandomCropFlip`.

    Raises:
        ValueError: an attribute is out of range.
    """

    num_ops: int = 2
    magnitude: float = 1.0
    cutout: int = 0
    fill: int = 128
    first: Augment | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.num_ops <= _KINDS:
            raise ValueError(
                f"num_ops must be between 0 and the {_KINDS} kinds of operations, "
                f"got {self.num_ops}."
            )
        if not 0 <= self.magnitude <= 1:
            raise ValueError(f"The magnitude must be between 0 and 1, got {self.magnitude}.")
        if self.cutout < 0:
            raise ValueError(f"The side of the cutout must not be negative, got {self.cutout}.")
        if not 0 <= self.fill <= 255:
            raise ValueError(f"The fill must be between 0 and 255, got {self.fill}.")

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
        if self.first is not None:
            images = self.first(images, index, seed=seed, epoch=epoch)
        if self.num_ops:
            amounts = self.draws(index, seed=seed, epoch=epoch)
            images = warp(recolour(images, amounts), amounts, fill=self.fill)
        if self.cutout:
            hole = self._hole(images, _bits(index, seed, epoch)[:, _KINDS])
            images = images.masked_fill(hole, self.fill)
        return images

    def draws(self, index: Tensor, *, seed: int, epoch: int) -> Amounts:
        """What happens to each sample.

        Args:
            index: ``(B,)`` int64 row of each sample.
            seed: training seed.
            epoch: 0, 1, …

        Returns:
            The amount of each operation, 0 for those that are not drawn.
        """
        bits = _bits(index, seed, epoch)[:, :_KINDS]
        strength = (_field(bits, 0) + 1) * (self.magnitude / (1 << _FIELD))
        sign = 1 - 2 * ((bits >> _FIELD) & 1)
        drawn = (bits >> (_FIELD + 1)).argsort(1).argsort(1) < self.num_ops
        kind = torch.arange(_KINDS, device=index.device)
        amounts = torch.where(kind < _SIGNED, sign * strength, strength)
        amounts = torch.where(kind < _GRADUAL, amounts, 1.0)
        return Amounts(*torch.where(drawn, amounts, 0.0).unbind(1))

    def _hole(self, images: Tensor, bits: Tensor) -> Tensor:
        """``(B, 1, H, W)`` bool."""
        lines = []
        for number, size in enumerate(images.shape[2:]):
            centre = (_field(bits, number) * size) >> _FIELD
            offset = torch.arange(size, device=bits.device) - centre.unsqueeze(1) + self.cutout // 2
            lines.append((offset >= 0) & (offset < self.cutout))
        rows, columns = lines
        return (rows.unsqueeze(2) & columns.unsqueeze(1)).unsqueeze(1)


def _bits(index: Tensor, seed: int, epoch: int) -> Tensor:
    """64 random bits for each sample and kind of operation, and as many for the hole."""
    number = _KINDS + 1
    counters = index.unsqueeze(1) * number + torch.arange(number, device=index.device)
    return hashed_bits(derive_seed(seed, _STRONG, epoch), counters)


def _field(bits: Tensor, number: int) -> Tensor:
    return (bits >> (_FIELD * number)) & ((1 << _FIELD) - 1)
