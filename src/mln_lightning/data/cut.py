"""How a data set is cut into sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mln_lightning.sizes import SampleSize


@dataclass(frozen=True)
class Cut:
    """How large each set is, and where it comes from.

    Attributes:
        num_meta: trusted samples; None = all there are.
        num_val: validation samples, a share being one of the training samples: of the source's own,
            None or a share = all; where it brings none, None = none.
        num_test: trusted samples to test on where the source brings no test set; None = none.
        meta_from: ``test`` cuts the meta set from the test set, as the published code does.
        meta_list: a file of rows or names, see `read_rows`: the meta set, chosen by hand.
        meta_in_train: the meta samples stay in the training set too, with their observed labels.
        num_unlabelled: training samples whose labels are hidden.
        num_train: labelled training samples that are kept, after all others are cut; None = all.

    Raises:
        ValueError: the choices contradict each other.
    """

    num_meta: SampleSize | None = None
    num_val: SampleSize | None = None
    num_test: SampleSize | None = None
    meta_from: Literal["train", "test"] = "train"
    meta_list: str | None = None
    meta_in_train: bool = False
    num_unlabelled: SampleSize | None = None
    num_train: SampleSize | None = None

    def __post_init__(self) -> None:
        one_of("meta_from", self.meta_from, ("train", "test"))
        if self.meta_from == "test" and self.meta_list is not None:
            raise ValueError("meta_from=test and meta_list contradict each other; leave one out.")


def one_of(name: str, value: str, allowed: Sequence[str]) -> None:
    """Refuse a value that is not among those allowed.

    Raises:
        ValueError: names what is allowed.
    """
    if value not in allowed:
        raise ValueError(f"{name} is one of {', '.join(allowed)}, got {value!r}.")


def size(name: str, value: int | float | str | None) -> SampleSize | None:
    """A size as configured; None stays None.

    Raises:
        ValueError: it is no size.
    """
    return None if value is None else SampleSize.parse(name, value)
