"""Lists of images with what is known about their classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mln_lightning.listing.classes import Classes


@dataclass(frozen=True, eq=False)
class Labels:
    """What is known about the classes of N images.

    Attributes:
        observed: N labels that may be wrong; None = unlabelled.
        truth: N true classes; None = unknown.
        trusted: for each image whether a meta set may be cut from it; its true class is known.
    """

    observed: list[int | None] = field(default_factory=list)
    truth: list[int | None] = field(default_factory=list)
    trusted: list[bool] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.observed)

    def add(self, label: int | None, true: int | None = None, trust: bool = False) -> None:
        """Append an image."""
        self.observed.append(label)
        self.truth.append(true)
        self.trusted.append(trust)

    @classmethod
    def of(
        cls,
        observed: Sequence[int | None],
        truth: Sequence[int | None] | None,
        is_clean: Sequence[bool | None] | None,
        where: Callable[[int], str],
    ) -> Labels:
        """Labels with what is said about them; see `true_class`.

        Args:
            observed: N labels.
            truth: N true classes, None where unknown; or None.
            is_clean: N statements, None where there is none; or None.
            where: what the message about a row begins with.

        Raises:
            ValueError: they are not of one length, or contradict each other.
        """
        result = cls()
        nothing = [None] * len(observed)
        rows = zip(observed, truth or nothing, is_clean or nothing, strict=True)
        for row, (label, true, sure) in enumerate(rows):
            result.add(label, *true_class(label, true, sure, where(row)))
        return result


@dataclass(frozen=True, eq=False)
class Part:
    """N images in files.

    Attributes:
        root: folder that the paths start from.
        paths: N paths, relative to ``root`` or absolute.
        labels: of each image.
    """

    root: Path
    paths: list[str]
    labels: Labels

    def __len__(self) -> int:
        return len(self.paths)


@dataclass(frozen=True, eq=False)
class Listing:
    """All parts of a data set.

    Attributes:
        classes: their names.
        train: the training set.
        val: own validation set, observed labels.
        meta: own trusted set; the observed labels are the true classes.
        test: own test set; the observed labels are the true classes.
        notes: what the user should know, a line each.
    """

    classes: Classes
    train: Part
    val: Part | None = None
    meta: Part | None = None
    test: Part | None = None
    notes: tuple[str, ...] = ()


def true_class(
    label: int | None, true: int | None, is_clean: bool | None, where: str
) -> tuple[int | None, bool]:
    """What is known of an image's true class, and whether a meta set may be cut from it.

    A known true class is trusted, unless `is_clean` is false: then it serves for metrics only.

    Args:
        label: observed class, or None.
        true: true class, or None.
        is_clean: True = the observed label is right; None = nothing is said.
        where: what a message begins with, such as a file and its line.

    Returns:
        true class or None, and whether it is trusted.

    Raises:
        ValueError: `is_clean` and the classes contradict each other.
    """
    if is_clean is None:
        return true, true is not None
    if not is_clean:
        return true, False
    if label is None and true is None:
        raise ValueError(f"{where}: is_clean says that the label is right, but there is none.")
    if label is not None and true is not None and true != label:
        raise ValueError(
            f"{where}: is_clean says that the label is right, but the known class is another one; "
            "leave is_clean empty, or correct one of them."
        )
    return (label if true is None else true), True
