"""Images with labels, before any noise or split."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from mln_lightning.data.layout import (
    channels_first,
    check_images,
    check_labels,
    check_trusted,
    integers,
)


@dataclass(frozen=True)
class DatasetInfo:
    """What is known about a data set before it is read.

    Attributes:
        name: for file names and tables.
        num_classes: C, at least 2.
        shape: (K, H, W) of an image.
        mean: K channel means of the training images scaled to 0…1.
        std: K channel standard deviations, positive.
        num_train: size of the training set before validation and meta samples are cut from it;
            None if only reading tells.
        flips: class → look-alike class, for asymmetric noise.
        superclasses: C numbers, the superclass of each class, or none; for noise within them.
        classes: C names, or none.

    Raises:
        ValueError: sizes are out of range or do not agree.
    """

    name: str
    num_classes: int
    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    num_train: int | None = None
    flips: Mapping[int, int] = field(default_factory=dict)
    superclasses: tuple[int, ...] = ()
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # Configuration files bring lists where this class promises tuples.
        for name, value in (
            ("shape", tuple(int(size) for size in self.shape)),
            ("mean", tuple(float(value) for value in self.mean)),
            ("std", tuple(float(value) for value in self.std)),
            ("flips", {int(source): int(target) for source, target in self.flips.items()}),
            ("superclasses", tuple(int(number) for number in self.superclasses)),
            ("classes", tuple(str(name) for name in self.classes)),
        ):
            object.__setattr__(self, name, value)
        if self.num_classes < 2:
            raise ValueError(f"{self.name} needs at least 2 classes, got {self.num_classes}.")
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise ValueError(f"The shape of {self.name} must be (K, H, W), got {self.shape}.")
        if len(self.mean) != self.shape[0] or len(self.std) != self.shape[0]:
            raise ValueError(
                f"{self.name} has {self.shape[0]} channels and needs as many means and deviations, "
                f"got {len(self.mean)} and {len(self.std)}."
            )
        if min(self.std) <= 0:
            raise ValueError(f"Channel deviations must be positive, got {self.std}.")
        for what, values in (("class names", self.classes), ("superclasses", self.superclasses)):
            if values and len(values) != self.num_classes:
                raise ValueError(
                    f"{self.name} has {self.num_classes} classes but {len(values)} {what}."
                )

    @property
    def class_names(self) -> tuple[str, ...]:
        """C names; the numbers of classes that have none."""
        return self.classes or tuple(str(number) for number in range(self.num_classes))

    @classmethod
    def of(
        cls, images: Tensor | np.ndarray, num_classes: int, *, name: str = "custom"
    ) -> DatasetInfo:
        """Describe a training set by looking at it.

        Args:
            images: ``(N, K, H, W)`` uint8, or any layout that `ImageArrays.from_numpy` takes.
            num_classes: C.
            name: for file names and tables.

        Raises:
            ValueError: the images are empty or have another type or layout.
        """
        images = channels_first(torch.as_tensor(images))
        check_images(images)
        if not len(images):
            raise ValueError("There are no images to describe.")
        # One image at a time in float64 would be slow, all at once large: count grey values.
        values = torch.arange(256, dtype=torch.float64) / 255
        counts = torch.stack(
            [torch.bincount(channel.flatten(), minlength=256) for channel in images.unbind(dim=1)]
        ).double()
        mean = counts @ values / counts.sum(dim=1)
        variance = (counts @ values.square() / counts.sum(dim=1) - mean.square()).clamp(min=0)
        std = torch.where(variance > 1e-12, variance.sqrt(), 1.0)  # a constant channel
        k, h, w = images.shape[1:]
        return cls(
            name=name,
            num_classes=num_classes,
            shape=(k, h, w),
            mean=tuple(mean.tolist()),
            std=tuple(std.tolist()),
            num_train=len(images),
        )


class LabeledImages(Protocol):
    """N images with labels; the images are fetched by row, so they need not fit into memory."""

    @property
    def labels(self) -> Tensor:
        """``(N,)`` int64 labels as the source gives them; ``UNKNOWN`` = unlabelled."""
        ...

    @property
    def clean(self) -> Tensor | None:
        """``(N,)`` int64 true classes, or ``UNKNOWN``; None if the source does not tell."""
        ...

    @property
    def trusted(self) -> Tensor | None:
        """``(N,)`` bool: a meta set may be cut from here; None = wherever the clean label is known.

        Where it is true, the clean label is known.
        """
        ...

    def __len__(self) -> int:
        """N."""
        ...

    def fetch(self, rows: Tensor) -> Tensor:
        """``(B,)`` int64 rows → ``(B, K, H, W)`` uint8 images."""
        ...

    def select(self, rows: Tensor) -> LabeledImages:
        """The ``(n,)`` int64 rows as a set of their own."""
        ...

    def name(self, row: int) -> str:
        """What a message calls an image: its path, or its row."""
        ...

    def content(self, row: int) -> bytes:
        """The image's file, or its pixels: equal for exact duplicates."""
        ...


@dataclass(frozen=True, eq=False)
class ImageArrays:
    """A set of images that lies in memory as one tensor.

    Attributes:
        images: ``(N, K, H, W)`` uint8, 0…255.
        labels: ``(N,)`` int64, ``UNKNOWN`` = unlabelled.
        clean: ``(N,)`` int64 true classes or ``UNKNOWN``, where ``labels`` may be wrong; optional.
        trusted: ``(N,)`` bool, see `LabeledImages.trusted`; optional.

    Raises:
        ValueError: a type, a shape or a label is not as described.
    """

    images: Tensor
    labels: Tensor
    clean: Tensor | None = None
    trusted: Tensor | None = None

    def __post_init__(self) -> None:
        check_images(self.images)
        check_labels("Labels", self.labels, len(self.images))
        if self.clean is not None:
            check_labels("Clean labels", self.clean, len(self.images))
        check_trusted(self.trusted, self.clean, len(self.images))

    @classmethod
    def from_numpy(
        cls,
        images: ArrayLike | Tensor,
        labels: ArrayLike | Tensor,
        clean: ArrayLike | Tensor | None = None,
    ) -> ImageArrays:
        """Build from arrays in the usual layouts.

        Args:
            images: uint8 ``(N, H, W)``, ``(N, H, W, K)`` or ``(N, K, H, W)`` with 1, 3 or 4
                channels.
            labels: ``(N,)`` integers.
            clean: ``(N,)`` integers, optional.

        Raises:
            ValueError: a type, a shape or a label is not as described.
        """
        return cls(
            images=channels_first(torch.as_tensor(images)).contiguous(),
            labels=integers("Labels", labels),
            clean=None if clean is None else integers("Clean labels", clean),
        )

    def __len__(self) -> int:
        return len(self.images)

    def fetch(self, rows: Tensor) -> Tensor:
        """``(B,)`` int64 rows → ``(B, K, H, W)`` uint8 images."""
        return self.images[rows.to(self.images.device)]

    def select(self, rows: Tensor) -> ImageArrays:
        """The ``(n,)`` int64 rows as a set of their own."""
        clean = None if self.clean is None else self.clean[rows]
        trusted = None if self.trusted is None else self.trusted[rows]
        return ImageArrays(self.images[rows], self.labels[rows], clean, trusted)

    def to(self, device: torch.device) -> ImageArrays:
        """The same with the images on ``device``; labels stay where they are."""
        return ImageArrays(self.images.to(device), self.labels, self.clean, self.trusted)

    def name(self, row: int) -> str:
        """The row's number."""
        return f"row {row}"

    def content(self, row: int) -> bytes:
        """The image's pixels."""
        return self.images[row].cpu().numpy().tobytes()


class Splits(NamedTuple):
    """The parts of a data set.

    Attributes:
        train: training set; validation and meta samples are cut from it where there is no own part.
        test: held out, clean; None = there is none.
        val: own validation part, used with its labels as they are.
        meta: own trusted part; its labels are taken as clean.
        also_test: further clean test sets, by name.
        notes: what the user should know about the source, a line each.
    """

    train: LabeledImages
    test: LabeledImages | None = None
    val: LabeledImages | None = None
    meta: LabeledImages | None = None
    also_test: Mapping[str, LabeledImages] = MappingProxyType({})
    notes: tuple[str, ...] = ()

    def parts(self) -> dict[str, LabeledImages]:
        """All parts there are, by name."""
        own = {"train": self.train, "test": self.test, "val": self.val, "meta": self.meta}
        return {name: part for name, part in own.items() if part is not None} | dict(self.also_test)

    def each(self, change: Callable[[str, LabeledImages], LabeledImages]) -> Splits:
        """The same parts, each replaced by ``change(name, part)``."""
        changed = {name: change(name, part) for name, part in self.parts().items()}
        return Splits(
            train=changed.pop("train"),
            test=changed.pop("test", None),
            val=changed.pop("val", None),
            meta=changed.pop("meta", None),
            also_test=changed,
            notes=self.notes,
        )
