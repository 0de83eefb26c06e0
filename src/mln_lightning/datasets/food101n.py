"""Food-101N (Lee et al., *CleanNet*, CVPR 2018), tested on Food-101 (Bossard et al., ECCV 2014)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from mln_lightning.batch import UNKNOWN
from mln_lightning.data.encoded import EncodedImages, ImageFiles, ImageFormat
from mln_lightning.data.source import Splits
from mln_lightning.datasets.files import require_files, require_folders
from mln_lightning.datasets.lists import bad_line, known_labels, read_keys, read_labels

Protocol = Literal["own", "published"]

_NAME = "Food-101N"
_NUM_CLASSES = 101
_FORMAT = ImageFormat(224, resize=256, fit="squash")
_HEADER = "class_name"  # all three lists of Food-101N begin with it, those of Food-101 have none
_RELEASE, _CLEAN = "Food-101N_release", "food-101"
_STRAYS = 0.01  # of the verified images may be missing from the image list


def food101n(
    data_dir: str | os.PathLike[str],
    protocol: Protocol = "own",
    image_format: ImageFormat = _FORMAT,
) -> Splits:
    """310,009 pictures of dishes from the web in 101 classes, about a fifth of them mislabelled.

    People have verified 52,868 training and 4,741 validation labels: flag 1 says that the label is
    right, flag 0 that it is wrong, not what would be right. Reads, as published and unpacked,
    ``food101N/Food-101N_release/{images,meta}`` and ``food101N/food-101/{images,meta}``. A class's
    number is its place among the sorted class names.

    Protocol ``own`` is that of the data set's authors: train on Food-101N, test on the 25,250 test
    images of Food-101. Images of ``verified_train`` with flag 1 have a known class and are trusted,
    so a meta set can be cut from them; those with flag 0 stay in the training set with their wrong
    label, of unknown class and never trusted. ``verified_val`` is the validation set, with observed
    labels like every validation set here, the wrong ones included.

    Protocol ``published`` is that of the published MetaLabelNet code, for comparison with it only:
    the test set is ``verified_val`` with flag 1 (its flag 0 is dropped), and the meta set is cut
    from all of Food-101, its test images included. That code also drops the first image of each
    list of Food-101, taking it for a header, and numbers the classes as the file system lists them;
    neither is copied here.

    One verified image of the release is listed under another class in the image list. Such images
    count as not verified.

    Args:
        data_dir: folder that holds ``food101N/``.
        protocol: who is tested on what.
        image_format: the default squashes an image to 256 × 256 and cuts out the middle 224 × 224.

    Raises:
        FileNotFoundError: a list or the folder of a class is missing. Images are looked for when
            they are needed.
        ValueError: an unknown protocol, or a line of a list that does not fit.
    """
    if protocol not in get_args(Protocol):
        raise ValueError(
            f"protocol must be one of {', '.join(get_args(Protocol))}, got {protocol!r}."
        )
    folder = Path(data_dir) / "food101N"
    release, clean = folder / _RELEASE, folder / _CLEAN
    listed, verified_train, verified_val = (
        release / "meta" / f"{name}.tsv" for name in ("imagelist", "verified_train", "verified_val")
    )
    clean_parts = ("test",) if protocol == "own" else ("train", "test")
    clean_lists = [clean / "meta" / f"{part}.txt" for part in clean_parts]
    advice = (
        "Get Food-101N (kuanghuei.github.io/Food-101N) and Food-101 from their project pages and "
        f"unpack them in {folder}"
    )
    require_files(listed, verified_train, verified_val, *clean_lists, name=_NAME, advice=advice)

    keys = read_keys(listed, header=_HEADER)
    classes = _classes(listed, keys)
    require_folders(
        *(root / "images" / name for root in (release, clean) for name in classes),
        name=_NAME,
        advice=advice,
    )
    train_flags, val_flags = _flags(verified_train, keys), _flags(verified_val, keys)
    train_keys = [key for key in keys if key not in val_flags]

    def images(part: str, names: Sequence[str], flags: Tensor | None = None) -> EncodedImages:
        labels = torch.tensor([classes[name.partition("/")[0]] for name in names])
        right = torch.ones_like(labels, dtype=torch.bool) if flags is None else flags == 1
        truth = torch.where(right, labels, UNKNOWN)
        store = ImageFiles(folder, [f"{part}/images/{name}" for name in names])
        return EncodedImages(store, labels, truth, right, image_format=image_format)

    clean_keys = [key for path in clean_lists for key in _clean_keys(path, classes)]
    train = images(_RELEASE, train_keys, known_labels(train_keys, train_flags))
    if protocol == "own":
        val = images(_RELEASE, list(val_flags), known_labels(val_flags, val_flags))
        return Splits(train=train, val=val, test=images(_CLEAN, clean_keys))
    right = [key for key, flag in val_flags.items() if flag == 1]
    return Splits(train=train, test=images(_RELEASE, right), meta=images(_CLEAN, clean_keys))


def _classes(path: Path, keys: Mapping[str, int]) -> dict[str, int]:
    """Class name → its number, from images listed as class/file."""
    names = set()
    for key, number in keys.items():
        name, _, file = key.partition("/")
        if not name or not file:
            raise bad_line(path, number, key, "a class, a slash and a file name")
        names.add(name)
    if len(names) != _NUM_CLASSES:
        raise ValueError(
            f"{path} lists images of {len(names)} classes, {_NAME} has {_NUM_CLASSES}: get the "
            "published file anew."
        )
    return {name: number for number, name in enumerate(sorted(names))}


def _flags(path: Path, keys: Mapping[str, int]) -> dict[str, int]:
    """Listed image → 1 if its label is right, 0 if it is wrong."""
    flags = read_labels(path, 2, separator="\t", header=_HEADER)
    strays = [key for key in flags if key not in keys]
    if len(strays) > _STRAYS * len(flags):
        raise ValueError(
            f"{path} does not belong to the image list: {len(strays)} of its {len(flags)} images "
            f"are not there, such as {strays[0]!r}. Get the published files anew."
        )
    return {key: flag for key, flag in flags.items() if key in keys}


def _clean_keys(path: Path, classes: Mapping[str, int]) -> list[str]:
    """Files of Food-101, which lists them without their ending."""
    keys = read_keys(path)
    for key, number in keys.items():
        name, _, file = key.partition("/")
        if name not in classes or not file:
            raise bad_line(path, number, key, f"a class of {_NAME}, a slash and a file name")
    return [f"{key}.jpg" for key in keys]
