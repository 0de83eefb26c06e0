"""From lists of images to images that are read when they are needed."""

from __future__ import annotations

import torch
from torch import Tensor

from mln_lightning.batch import UNKNOWN
from mln_lightning.data.encoded import EncodedImages, ImageFiles
from mln_lightning.data.image_format import ImageFormat
from mln_lightning.data.source import Splits
from mln_lightning.listing import Labels, Listing, Part


def splits_of(listing: Listing, image_format: ImageFormat) -> Splits:
    """All parts of a listing, their files unread.

    Args:
        listing: of files.
        image_format: the shape that all images get.
    """

    def images(part: Part) -> EncodedImages:
        store = ImageFiles(part.root, part.paths)
        return EncodedImages(store, *tensors(part.labels), image_format=image_format)

    def own(part: Part | None) -> EncodedImages | None:
        return None if part is None else images(part)

    return Splits(
        train=images(listing.train),
        test=own(listing.test),
        val=own(listing.val),
        meta=own(listing.meta),
        notes=listing.notes,
    )


def tensors(labels: Labels) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Observed labels and true classes, ``(N,)`` int64, and ``(N,)`` bool who is trusted.

    The last two are None if no true class is known.
    """
    observed = _classes(labels.observed)
    if all(true is None for true in labels.truth):
        return observed, None, None
    return observed, _classes(labels.truth), torch.tensor(labels.trusted, dtype=torch.bool)


def _classes(numbers: list[int | None]) -> Tensor:
    return torch.tensor([UNKNOWN if n is None else n for n in numbers], dtype=torch.int64)
