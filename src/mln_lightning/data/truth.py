"""The truth about a training set, for those who make noise and measure it; never for a learner."""

from __future__ import annotations

from torch import Tensor

from mln_lightning.batch import UNKNOWN
from mln_lightning.data.source import LabeledImages


def clean_labels(images: LabeledImages, *, name: str, purpose: str) -> Tensor:
    """``(N,)`` int64 clean labels of a set in which every one is known.

    Args:
        images: the set.
        name: what a message calls the data set.
        purpose: what they are needed for, such as "A teacher".

    Raises:
        ValueError: some are not known.
    """
    total = len(images)
    unknown = total if images.clean is None else int((images.clean == UNKNOWN).sum())
    if images.clean is None or unknown:
        raise ValueError(
            f"{purpose} needs the clean label of every training image, and {name} does not tell "
            f"{unknown} of {total}: use a data set whose labels are known to be right."
        )
    return images.clean
