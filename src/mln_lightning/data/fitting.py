"""Whether the parts of a data set fit its description and the sizes asked for."""

from __future__ import annotations

import torch
from torch import Tensor

from mln_lightning.batch import UNKNOWN
from mln_lightning.data.cut import Cut
from mln_lightning.data.source import DatasetInfo, LabeledImages, Splits
from mln_lightning.sizes import SampleSize

_NAMED = 5  # classes that a sentence lists before it says "and n more"


def trusted_mask(part: LabeledImages, clean: Tensor) -> Tensor:
    """``(N,)`` bool: where a meta set may be cut from, see `LabeledImages.trusted`."""
    return clean != UNKNOWN if part.trusted is None else part.trusted


def check_part(name: str, part: LabeledImages, info: DatasetInfo) -> None:
    """Refuse a part that is empty, or whose images or labels are not as described.

    Args:
        name: ``train``, ``test``, …
        part: the part.
        info: description of the data set.

    Raises:
        ValueError: says what does not fit.
    """
    if not len(part):
        raise ValueError(f"The {name} part of {info.name} is empty.")
    shape = tuple(part.fetch(torch.tensor([0])).shape[1:])
    if shape != info.shape:
        raise ValueError(
            f"The images of the {name} part of {info.name} have the shape {shape}, "
            f"described is {info.shape}."
        )
    for kind, labels in (("labels", part.labels), ("clean labels", part.clean)):
        if labels is None:
            continue
        low, high = int(labels.min()), int(labels.max())
        # Only training images may be unlabelled; a true class may be unknown anywhere.
        may_be_unknown = kind == "clean labels" or name == "train"
        if high >= info.num_classes or low < (UNKNOWN if may_be_unknown else 0):
            raise ValueError(
                f"The {kind} of the {name} part of {info.name} must be classes 0 to "
                f"{info.num_classes - 1}, they run from {low} to {high}."
            )
    if name == "train" and info.num_train not in (None, len(part)):
        raise ValueError(
            f"{info.name} should have {info.num_train} training images, found {len(part)}."
        )


def check_sizes(splits: Splits, info: DatasetInfo, cut: Cut, *, trusted: int) -> None:
    """Every part must be large enough, and something must be left to train on.

    Args:
        splits: parts of the data set.
        info: their description.
        cut: sizes asked for.
        trusted: samples of the training part that a meta set may be cut from.

    Raises:
        ValueError: says which size cannot be had.
    """
    total = len(splits.train)
    own_meta = splits.test if cut.meta_from == "test" else splits.meta
    meta = None if cut.meta_list is not None else cut.num_meta
    wanted = _count("meta", meta, own_meta, trusted, info)
    wanted += _count("val", cut.num_val, splits.val, total, info)
    if wanted >= total:
        raise ValueError(
            f"Meta and validation set together ask for {wanted} of {total} training "
            "samples and leave none to train on: lower num_meta or num_val."
        )
    if own_meta is not None or cut.meta_list is not None:
        return
    if not trusted:
        raise ValueError(
            "The clean labels of the training images are not known, so no meta set can be cut from "
            "them: verify some (dataset.source.verified of a folder, column is_clean of a table, "
            "dataset.meta_list of any data set), or bring a meta set of its own."
        )
    if meta is None and trusted == total:
        raise ValueError("The source brings no meta set: say with num_meta how many to cut.")
    if meta is not None and (count := meta.count(trusted, info.num_classes)) > trusted:
        raise ValueError(
            f"num_meta asks for {count} samples, only {trusted} training images are trusted: lower "
            "num_meta, or verify more."
        )


def _count(
    name: str, size: SampleSize | None, own: LabeledImages | None, pool: int, info: DatasetInfo
) -> int:
    """Samples that a set takes from the training part."""
    if size is None:
        return 0
    count = size.count(pool if own is None else len(own), info.num_classes)
    if own is None:
        return count
    if count > len(own):
        raise ValueError(
            f"num_{name} asks for {count} samples, the source's own {name} set has {len(own)}."
        )
    return 0


def check_meta_classes(labels: Tensor, info: DatasetInfo) -> None:
    """Refuse a meta set that lacks a class.

    Args:
        labels: ``(m,)`` int64 trusted labels.
        info: description of the data set.

    Raises:
        ValueError: names the classes.
    """
    if len(labels) < info.num_classes:
        raise ValueError(
            f"The meta set needs at least one sample of each of the {info.num_classes} classes, "
            f"num_meta is {len(labels)}."
        )
    counts = torch.bincount(labels, minlength=info.num_classes)
    missing = (counts == 0).nonzero().squeeze(1).tolist()
    if missing:
        names = [repr(info.class_names[c]) for c in missing[:_NAMED]]
        more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        raise ValueError(
            "The meta set needs at least one sample of each class and has none of "
            f"{', '.join(names)}{more}: verify an image of each."
        )
