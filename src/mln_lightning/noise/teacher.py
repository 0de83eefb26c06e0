"""Noise that depends on the image through a teacher's scores: "feature-dependent" noise."""

from __future__ import annotations

import math
import os

import torch
from torch import Tensor

from mln_lightning.noise.base import Images
from mln_lightning.noise.checks import check_classes, check_rate
from mln_lightning.noise.files import existing, read_array, read_arrays

_WHAT = "teacher scores"
_KEY = "noise.scores"


class TeacherNoise:
    """Wrong labels where a teacher errs, or comes nearest to erring.

    The feature-dependent noise of Algan & Ulusoy, "MetaLabelNet" (IEEE TIP 2022), with an exact
    number of flips, ⌊N · rate⌋:

    1. If the teacher misclassifies at least as many images, those on whose wrong class it is most
       confident get that class.
    2. Otherwise all misclassified ones do, and of the others those whose runner-up class has the
       largest score get their runner-up.
    3. A runner-up without any score (probability 0) is replaced by a random wrong class.

    Equal scores are ordered by lot. They decide much: in the published scores for CIFAR-10 the
    second and third class tie in two of three rows, and an order by position would make most of
    those images class 9.

    Args:
        scores: ``.npy`` file of ``(N, C)`` scores, or the ``.npz`` file that
            ``python -m mln_lightning.teacher`` writes, whose labels must be the data set's. One row
            for each training image in the data set's order; larger = more like the class.
        num_classes: C, at least 2.
        rate: 0 ≤ rate < 1.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the rate is out of range, or the file does not hold scores for C classes.
    """

    def __init__(
        self, scores: str | os.PathLike[str] | None, num_classes: int, rate: float
    ) -> None:
        check_rate(num_classes, rate)
        self.num_classes = num_classes
        self.rate = rate
        self.path = existing(scores, what=_WHAT, key=_KEY)
        self._labels: Tensor | None = None
        if self.path.suffix.lower() == ".npz":
            arrays = read_arrays(self.path, what=_WHAT)
            for name in ("scores", "labels"):
                if name not in arrays or arrays[name].dtype.kind not in "iuf":
                    raise ValueError(
                        f"{self.path} has no numbers named {name!r}, as teacher scores need."
                    )
            values = arrays["scores"]
            self._labels = torch.from_numpy(arrays["labels"].astype("<i8"))
        else:
            values = read_array(self.path, what=_WHAT)
        if values.ndim != 2 or values.shape[1] != num_classes:
            raise ValueError(
                f"The data set has {num_classes} classes and needs scores of shape "
                f"(N, {num_classes}), {self.path} holds {values.shape}."
            )
        self._scores = torch.from_numpy(values.astype("<f8"))
        if bool(self._scores.isnan().any()) or bool(self._scores.isposinf().any()):
            raise ValueError(f"{self.path} holds NaN or infinite scores.")

    def __call__(
        self, labels: Tensor, images: Images | None = None, *, generator: torch.Generator
    ) -> Tensor:
        """Draw observed labels.

        Args:
            labels: ``(N,)`` int64 clean labels in 0…C-1; not changed.
            images: not looked at; the teacher has.
            generator: CPU generator, for ties and step 3.

        Returns:
            ``(N,)`` int64.

        Raises:
            ValueError: a label lies outside 0…C-1, or the scores are those of other images.
        """
        check_classes(labels, self.num_classes)
        self._check_alignment(labels)
        # To 9 decimals: 50 · 0.58 is 28.999…996 in float64.
        number = math.floor(round(len(labels) * self.rate, 9))
        observed = labels.clone()
        if number == 0:
            return observed
        values, classes = _two_best(self._scores, generator)
        wrong = classes[:, 0] != labels
        missed = wrong.nonzero().squeeze(1)
        first = missed[_largest(values[missed, 0], number, generator)]
        observed[first] = classes[first, 0]
        right = (~wrong).nonzero().squeeze(1)
        second = right[_largest(values[right, 1], number - len(first), generator)]
        observed[second] = classes[second, 1]
        unseen = second[_without_score(values[second, 1], self._scores)]
        shifts = torch.randint(1, self.num_classes, (len(unseen),), generator=generator)
        observed[unseen] = (labels[unseen] + shifts) % self.num_classes
        return observed

    def _check_alignment(self, labels: Tensor) -> None:
        if len(self._scores) != len(labels):
            raise ValueError(
                f"{self.path} scores {len(self._scores)} images, the training set has "
                f"{len(labels)}: use the scores of this data set."
            )
        if self._labels is not None and not torch.equal(self._labels, labels):
            differ = (self._labels != labels).nonzero().squeeze(1)
            raise ValueError(
                f"{self.path} belongs to other images: its labels differ from the clean ones in "
                f"{len(differ)} of {len(labels)} rows, first in row {int(differ[0])}; score this "
                "data set anew."
            )


def _two_best(scores: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The two largest scores of each row and their classes, both ``(N, 2)``; ties by lot."""
    lots = torch.rand(scores.shape, generator=generator).argsort(dim=1, stable=True)
    values, places = scores.gather(1, lots).sort(dim=1, descending=True, stable=True)
    return values[:, :2], lots.gather(1, places[:, :2])


def _largest(values: Tensor, number: int, generator: torch.Generator) -> Tensor:
    """Positions of up to ``number`` largest values; ties by lot."""
    lots = torch.randperm(len(values), generator=generator)
    return lots[values[lots].argsort(descending=True, stable=True)][:number]


def _without_score(values: Tensor, scores: Tensor) -> Tensor:
    """Where a class has probability 0: 0 among probabilities, minus infinity among their logs."""
    none = values.isneginf()
    return none | (values == 0) if bool((scores >= 0).all()) else none
