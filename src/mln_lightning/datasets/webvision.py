"""Mini-WebVision: 50 classes of WebVision 1.0 (Li et al., arXiv 1708.02862, 2017)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch

from mln_lightning.data.encoded import EncodedImages, ImageFiles, ImageFormat
from mln_lightning.data.source import Splits
from mln_lightning.datasets.files import require_files, require_folders
from mln_lightning.datasets.lists import read_labels

_NAME = "WebVision"
_SECOND = "imagenet_val"
_NUM_LABELS = 1000  # of all WebVision; this set keeps the first ones
_FORMAT = ImageFormat(299, resize=320, fit="squash")
WNIDS = tuple(  # class 0, 1, …: the first of ILSVRC 2012's synsets in sorted order
    f"n{number:08d}"
    for number in (
        *(1440764, 1443537, 1484850, 1491361, 1494475, 1496331, 1498041, 1514668, 1514859, 1518878),
        *(1530575, 1531178, 1532829, 1534433, 1537544, 1558993, 1560419, 1580077, 1582220, 1592084),
        *(1601694, 1608432, 1614925, 1616318, 1622779, 1629819, 1630670, 1631663, 1632458, 1632777),
        *(1641577, 1644373, 1644900, 1664065, 1665541, 1667114, 1667778, 1669191, 1675722, 1677366),
        *(1682714, 1685808, 1687978, 1688243, 1689811, 1692333, 1693334, 1694178, 1695060, 1697457),
    )
)


def webvision(data_dir: str | os.PathLike[str], image_format: ImageFormat = _FORMAT) -> Splits:
    """About 66,000 images that Google found for 50 names of animals; the names are the labels.

    Reads ``webvision/`` as published and unpacked: ``info/train_filelist_google.txt``, ``google/``,
    ``info/val_filelist.txt`` and ``val_images/`` (of the release with small images, rename
    ``val_images_256``). The test set is the 2,500 validation images, 50 of each class. Nothing else
    has a clean label, so a meta set must be cut from them (the data module's ``meta_from="test"``,
    which leaves the other validation images to test on), or be chosen by hand (``meta_list``).

    If there is ``webvision/imagenet_val/`` with ILSVRC 2012's validation images in a folder for
    each synset, those of the 50 classes are a second test set, ``ilsvrc2012``.

    Args:
        data_dir: folder that holds ``webvision/``.
        image_format: the default squashes an image to 320 × 320 and cuts out the middle 299 × 299.

    Raises:
        FileNotFoundError: a list, or a class of the second test set, is missing. Images are looked
            for when they are needed.
        ValueError: a line of a list does not fit.
    """
    folder = Path(data_dir) / "webvision"
    train = folder / "info" / "train_filelist_google.txt"
    val = folder / "info" / "val_filelist.txt"
    advice = (
        "Get WebVision 1.0 from its page (data.vision.ee.ethz.ch/cvl/webvision) and unpack info, "
        f"the Google images and the validation images in {folder}"
    )
    require_files(train, val, name=_NAME, advice=advice)

    def part(place: str, labels: Mapping[str, int], *, clean: bool) -> EncodedImages:
        kept = {name: label for name, label in labels.items() if label < len(WNIDS)}
        classes = torch.tensor(list(kept.values()), dtype=torch.int64)
        store = ImageFiles(folder, [f"{place}{name}" for name in kept])
        return EncodedImages(store, classes, classes if clean else None, image_format=image_format)

    also_test = {}
    if (folder / _SECOND).is_dir():
        also_test["ilsvrc2012"] = part(f"{_SECOND}/", _ilsvrc(folder / _SECOND), clean=True)
    return Splits(
        train=part("", read_labels(train, _NUM_LABELS), clean=False),
        test=part("val_images/", read_labels(val, _NUM_LABELS), clean=True),
        also_test=also_test,
    )


def _ilsvrc(folder: Path) -> dict[str, int]:
    """File, from this folder on → class, for the 50 classes; other synsets are passed over."""
    advice = f"Put the validation images of each synset there, or remove {folder}"
    require_folders(*(folder / wnid for wnid in WNIDS), name="ILSVRC 2012", advice=advice)
    labels: dict[str, int] = {}
    for label, wnid in enumerate(WNIDS):
        names = sorted(file.name for file in (folder / wnid).iterdir() if file.name[0] != ".")
        if not names:
            raise ValueError(f"ILSVRC 2012 is not complete: {folder / wnid} is empty. {advice}.")
        labels |= {f"{wnid}/{name}": label for name in names}
    return labels
