"""Noise that is locally concentrated: whole groups of similar images are wrong together."""

from __future__ import annotations

import math
import os

import numpy as np
import torch
from torch import Tensor

from mln_lightning.noise.base import Images
from mln_lightning.noise.checks import check_classes, check_images, check_rate
from mln_lightning.noise.files import existing, read_array
from mln_lightning.noise.thumbnails import thumbnails

_WHAT = "features"
_KEY = "noise.features"
_SIDE = 8
_ITERATIONS = 50


class ClusterNoise:
    """Whole clusters of similar images get one wrong class each.

    "Locally concentrated" noise: the images of each class are grouped by k-means; of its clusters,
    beginning with the largest that still fits, whole ones are relabelled, each as one random other
    class, until no further cluster fits into ``n · rate``. What a class could not use up is left to
    the next one, in random order of the classes, so the whole noise rate is at most ``rate`` and
    short of it by less than one cluster. A class of a few images has fewer clusters.

    Similar means near in grey values, with images averaged down to 8 × 8, or near in features of
    your own.

    Args:
        num_classes: C, at least 2.
        rate: 0 ≤ rate < 1.
        clusters: of each class, at least 2.
        features: ``.npy`` file of ``(N, F)`` numbers, a row for each training image in the data
            set's order; None = the images themselves.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: an argument is out of range, or the file does not hold features.
    """

    def __init__(
        self,
        num_classes: int,
        rate: float,
        clusters: int = 20,
        features: str | os.PathLike[str] | None = None,
    ) -> None:
        check_rate(num_classes, rate)
        if clusters < 2:
            raise ValueError(f"Cluster noise needs at least 2 clusters a class, got {clusters}.")
        self.num_classes = num_classes
        self.rate = rate
        self.clusters = clusters
        self._features: np.ndarray | None = None
        if features is not None:
            path = existing(features, what=_WHAT, key=_KEY)
            self._features = read_array(path, what=_WHAT).astype("<f8")
            if self._features.ndim != 2 or not np.isfinite(self._features).all():
                raise ValueError(
                    f"Features must be finite numbers of shape (N, F), {path} holds "
                    f"{self._features.shape}."
                )

    def __call__(
        self, labels: Tensor, images: Images | None = None, *, generator: torch.Generator
    ) -> Tensor:
        """Draw observed labels.

        Args:
            labels: ``(N,)`` int64 clean labels in 0…C-1; not changed.
            images: the N images, looked at once, a class at a time; not needed with features.
            generator: CPU generator, the only source of randomness.

        Returns:
            ``(N,)`` int64.

        Raises:
            ValueError: a label lies outside 0…C-1, or images or features do not pair up with them.
        """
        check_classes(labels, self.num_classes)
        if self._features is None:
            images = check_images(images, labels, noise="Cluster noise")
        elif len(self._features) != len(labels):
            raise ValueError(
                f"There are features of {len(self._features)} images and {len(labels)} labels: use "
                "the features of this data set."
            )
        observed = labels.clone()
        if self.rate == 0:
            return observed
        budget = 0.0  # images that may still become wrong
        for clean in torch.randperm(self.num_classes, generator=generator).tolist():
            rows = (labels == clean).nonzero().squeeze(1)
            if not len(rows):
                continue
            budget = round(budget + len(rows) * self.rate, 9)
            groups = self._groups(self._points(rows, images), generator)
            sizes = torch.bincount(groups)
            shifts = torch.randint(1, self.num_classes, (len(sizes),), generator=generator)
            for group in sizes.argsort(descending=True, stable=True).tolist():
                if int(sizes[group]) <= budget:
                    budget -= int(sizes[group])
                    observed[rows[groups == group]] = (clean + shifts[group]) % self.num_classes
        return observed

    def _points(self, rows: Tensor, images: Images | None) -> np.ndarray:
        """``(n, F)`` float64 features of some images."""
        if self._features is not None:
            points: np.ndarray = self._features[rows.numpy()]
        else:
            assert images is not None
            pixels = [small.flatten(1) for _, small in thumbnails(images, rows, _SIDE)]
            points = torch.cat(pixels).numpy()
        return points

    def _groups(self, points: np.ndarray, generator: torch.Generator) -> Tensor:
        """``(n,)`` int64 cluster of each point, by k-means on one thread."""
        from sklearn.cluster import KMeans
        from threadpoolctl import threadpool_limits

        # Five images a cluster at least: single images would be no concentration.
        wanted = min(self.clusters, math.ceil(len(points) / 5))
        number = min(wanted, len(np.unique(points, axis=0)))
        seed = int(torch.randint(2**31, (1,), generator=generator))
        means = KMeans(number, n_init=1, max_iter=_ITERATIONS, random_state=seed)
        with threadpool_limits(limits=1):  # sums in another order could move a point
            return torch.from_numpy(means.fit_predict(points).astype("<i8"))
