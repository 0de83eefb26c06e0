"""A user's own images in one file of arrays."""

from __future__ import annotations

import os

import torch

from mln_lightning.data.layout import channels_first
from mln_lightning.data.source import ImageArrays, Splits
from mln_lightning.datasets.listed import tensors
from mln_lightning.listing.arrays import images_key, list_arrays, open_arrays, read_array


def arrays(file: str | os.PathLike[str]) -> Splits:
    """Images and labels from an ``.npz`` file; nothing in it is run.

    Arrays, by name:

    - ``images``: uint8 ``(N, H, W)``, ``(N, H, W, K)`` or ``(N, K, H, W)`` with K of 1, 3 or 4.
    - ``labels``: ``(N,)`` observed classes 0, 1, …; -1 = unlabelled.
    - ``clean_labels``, optional: ``(N,)`` true classes; -1 = unknown.
    - ``is_clean``, optional: ``(N,)`` bool: true = the label is right and the image trusted, false
      = it is not trusted. Without it those with a clean label are trusted.
    - ``val_images`` and ``val_labels``, the same for ``meta`` and ``test``, optional: own parts;
      the labels of ``meta`` and ``test`` must be right.
    - ``class_names``, optional: C texts.
    - ``mean`` and ``std``, optional: K numbers on the scale 0…1; without them 0.5 and 0.25.

    Args:
        file: path of the ``.npz`` file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: an array is missing, damaged or not as described.
    """
    listed = list_arrays(file)
    parts = {}
    with open_arrays(listed.path) as content:
        for part, labels in listed.labels.items():
            images = torch.from_numpy(read_array(listed.path, content, images_key(part)))
            parts[part] = ImageArrays(channels_first(images).contiguous(), *tensors(labels))
    return Splits(
        train=parts["train"],
        test=parts.get("test"),
        val=parts.get("val"),
        meta=parts.get("meta"),
    )
