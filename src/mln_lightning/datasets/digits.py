"""Handwritten digits that come with scikit-learn: real, offline, read in a second."""

from __future__ import annotations

import numpy as np

from mln_lightning.data.source import ImageArrays, Splits
from mln_lightning.data.split import stratified_split
from mln_lightning.seeding import generator

_NUM_TEST = 360
_TEST_SEED = 1797  # fixes the test set once and for all, whatever the seeds of a run


def digits() -> Splits:
    """1,797 images, 10 classes, 8 × 8 pixels (Alpaydin & Kaynak, UCI, 1998).

    The set has no test part of its own. A stratified 360 images are set aside by a constant seed,
    so every run is tested on the same ones; 1,437 are left for training, validation and meta set.
    The original 17 grey values are stretched to 0…255.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    everything = ImageArrays.from_numpy(images, bunch.target, bunch.target)
    test, train = stratified_split(everything.labels, _NUM_TEST, generator=generator(_TEST_SEED))
    return Splits(train=everything.select(train), test=everything.select(test))
