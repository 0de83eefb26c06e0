"""Clothing1M (Xiao et al., *Learning from Massive Noisy Labeled Data*, CVPR 2015)."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from mln_lightning.batch import UNKNOWN
from mln_lightning.data.encoded import EncodedImages, ImageFiles, ImageFormat
from mln_lightning.data.source import Splits
from mln_lightning.datasets.files import require_files
from mln_lightning.datasets.lists import known_labels, labels_of, read_keys, read_labels

Variant = Literal["noisy", "with_clean_train", "balanced"]

_NAME = "Clothing1M"
_NUM_CLASSES = 14
_FORMAT = ImageFormat(224, resize=256, fit="squash")
_NOISY, _CLEAN = "noisy_label_kv.txt", "clean_label_kv.txt"
_LISTS = {part: f"clean_{part}_key_list.txt" for part in ("train", "val", "test")}
_NOISY_LIST = "noisy_train_key_list.txt"


def clothing1m(
    data_dir: str | os.PathLike[str],
    variant: Variant = "noisy",
    image_format: ImageFormat = _FORMAT,
) -> Splits:
    """A million pictures of clothes from shops, 14 classes, labels from the text around them.

    Reads ``clothing1M/`` as published: six text files and ``images/``, unpacked. The meta set is
    ``clean_val`` (14,313 images), the test set ``clean_test`` (10,526). Training images keep what
    is known of their true class for the metrics, and none of them is trusted.

    The published class order: T-Shirt, Shirt, Knitwear, Chiffon, Sweater, Hoodie, Windbreaker,
    Jacket, Downcoat, Suit, Shawl, Dress, Vest, Underwear.

    Args:
        data_dir: folder that holds ``clothing1M/``.
        variant: ``noisy``: the 1,000,000 training images with noisy labels. ``with_clean_train``:
            the 47,570 of ``clean_train`` too; an image with a clean label is trained with that.
            ``balanced``: of ``noisy`` the first images of each class, as many as the rarest class
            has. The published code counts that over all noisy labels, those of images outside the
            training list too, so its classes may differ a little in size; ours do not.
        image_format: the default squashes an image to 256 × 256 and cuts out the middle 224 × 224.

    Raises:
        FileNotFoundError: a text file is missing. Images are looked for when they are needed.
        ValueError: an unknown variant, or a line of a text file that does not fit.
    """
    if variant not in get_args(Variant):
        raise ValueError(f"variant must be one of {', '.join(get_args(Variant))}, got {variant!r}.")
    folder = Path(data_dir) / "clothing1M"
    require_files(
        *(folder / name for name in (_NOISY_LIST, *_LISTS.values(), _NOISY, _CLEAN)),
        name=_NAME,
        advice=(
            "Ask for the data on the project page (github.com/Cysu/noisy_label) and unpack the "
            f"annotations and the images in {folder}"
        ),
    )
    noisy = read_labels(folder / _NOISY, _NUM_CLASSES)
    clean = read_labels(folder / _CLEAN, _NUM_CLASSES)

    def listed(name: str, labels: dict[str, int], labels_name: str) -> tuple[list[str], Tensor]:
        keys = read_keys(folder / name)
        return list(keys), labels_of(
            keys, labels, keys_path=folder / name, labels_path=folder / labels_name
        )

    def images(keys: Iterable[str], labels: Tensor, truth: Tensor, trust: bool) -> EncodedImages:
        store = ImageFiles(folder, list(keys))
        trusted = torch.full_like(labels, trust, dtype=torch.bool)
        return EncodedImages(store, labels, truth, trusted, image_format=image_format)

    keys, labels = listed(_NOISY_LIST, noisy, _NOISY)
    if variant == "balanced":
        rows = _first_of_each_class(labels)
        keys, labels = [keys[row] for row in rows.tolist()], labels[rows]
    truth = known_labels(keys, clean)
    if variant == "with_clean_train":
        clean_keys, _ = listed(_LISTS["train"], clean, _CLEAN)
        known = set(keys)
        keys += [key for key in clean_keys if key not in known]
        truth = known_labels(keys, clean)
        labels = torch.where(truth == UNKNOWN, known_labels(keys, noisy), truth)
    parts = {part: listed(_LISTS[part], clean, _CLEAN) for part in ("val", "test")}
    return Splits(
        train=images(keys, labels, truth, trust=False),
        meta=images(*parts["val"], parts["val"][1], trust=True),
        test=images(*parts["test"], parts["test"][1], trust=True),
    )


def _first_of_each_class(labels: Tensor) -> Tensor:
    """Ascending rows: of each class the first ones, as many as the rarest class has."""
    sizes = torch.bincount(labels, minlength=_NUM_CLASSES)
    smallest = int(sizes.min())
    if not smallest:
        raise ValueError(
            f"variant=balanced needs images of every class, and class {int(sizes.argmin())} has "
            "none: use variant=noisy."
        )
    chosen = [(labels == c).nonzero().squeeze(1)[:smallest] for c in range(_NUM_CLASSES)]
    return torch.cat(chosen).sort().values
