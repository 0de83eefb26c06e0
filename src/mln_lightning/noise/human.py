"""Labels that people gave to the CIFAR training images."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from mln_lightning.noise.base import Images
from mln_lightning.unpickle import load_arrays

LabelSet = Literal["aggre", "rand1", "rand2", "rand3", "worst", "fine"]

_KEYS: dict[LabelSet, str] = {  # ours → theirs
    "aggre": "aggre_label",
    "rand1": "random_label1",
    "rand2": "random_label2",
    "rand3": "random_label3",
    "worst": "worse_label",
    "fine": "noisy_label",
}
_HARDEST: tuple[LabelSet, ...] = ("worst", "fine")  # of CIFAR-10N, and all there is of CIFAR-100N
_CLEAN = "clean_label"
_WHERE = (
    "Get CIFAR-10_human.pt and CIFAR-100_human.pt from the CIFAR-10N project page (Wei et al., "
    "ICLR 2022), or correct noise.file"
)


class HumanLabels:
    """CIFAR-10N and CIFAR-100N (Wei et al., *Learning with Noisy Labels Revisited*, ICLR 2022).

    Three people labelled each CIFAR-10 training image, one each CIFAR-100 image. The labels are a
    fixed list: nothing is drawn. Wrong labels: ``aggre`` (majority of the three) 9.01 %, ``rand1``
    17.23 %, ``rand2`` 18.12 %, ``rand3`` 17.64 %, ``worst`` (a wrong one, if any was) 40.21 %;
    ``fine``, of CIFAR-100, 40.20 %.

    The file is a pickle inside a zip archive. It is read without `torch.load`, whose safe mode
    refuses it and whose other mode would run whatever code the file holds.

    Args:
        file: the published ``CIFAR-10_human.pt`` or ``CIFAR-100_human.pt``.
        label_set: which labels; None = ``worst`` or ``fine``, whichever the file has.

    Raises:
        ValueError: there is no such label set.
    """

    def __init__(self, file: str | os.PathLike[str], label_set: LabelSet | None = None) -> None:
        if label_set is not None and label_set not in _KEYS:
            raise ValueError(
                f"label_set must be one of {', '.join(get_args(LabelSet))}, got {label_set!r}."
            )
        self.file = Path(file)
        self.label_set = label_set

    def __call__(
        self, labels: Tensor, images: Images | None = None, *, generator: torch.Generator
    ) -> Tensor:
        """Look up the human labels of the CIFAR training set.

        Args:
            labels: ``(N,)`` int64 clean labels, in the order of the published training set.
            images: not looked at.
            generator: not used; the labels are a fixed list.

        Returns:
            ``(N,)`` int64.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is damaged, has no such labels, or belongs to other images.
        """
        sets = self._read()
        chosen = self._column(sets, self._key(sets))
        clean = self._column(sets, _CLEAN)
        if len(clean) != len(labels):
            raise ValueError(
                f"{self.file} labels {len(clean)} images, the training set has {len(labels)}: "
                "human labels go with the whole CIFAR training set they were made for."
            )
        other = (clean != labels).nonzero().squeeze(1)
        if len(other):
            raise ValueError(
                f"{self.file} is about other images: its clean labels differ from those of the "
                f"training set at {len(other)} of {len(labels)} places, first at row "
                f"{int(other[0])}. Take the file of this data set, and the published order."
            )
        if len(chosen) != len(clean) or int(chosen.min()) < 0 or chosen.max() > clean.max():
            raise self._damaged("a label is missing or no class")
        return chosen

    def _read(self) -> Mapping[str, Any]:
        """All arrays of the file by their published names."""
        if not self.file.is_file():
            raise FileNotFoundError(f"There are no human labels at {self.file}. {_WHERE}.")
        try:
            with zipfile.ZipFile(self.file) as archive:
                names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
                if len(names) != 1:
                    raise ValueError("it holds no data.pkl")
                with archive.open(names[0]) as entry:
                    sets = load_arrays(entry)
            if not isinstance(sets, dict):
                raise ValueError(f"it holds a {type(sets).__name__}, not named labels")
        # A damaged pickle may fail in any way: its bytes are a program.
        except Exception as error:
            raise self._damaged(str(error)) from error
        return sets

    def _key(self, sets: Mapping[str, Any]) -> str:
        offered = [name for name, key in _KEYS.items() if key in sets]
        wanted = self.label_set or next((n for n in _HARDEST if n in offered), None)
        if wanted not in offered:
            raise ValueError(
                f"{self.file} has no labels {wanted or 'that we know'}; it has "
                f"{', '.join(offered) or 'none'}. Set noise.label_set, or noise.file."
            )
        return _KEYS[wanted]

    def _column(self, sets: Mapping[str, Any], key: str) -> Tensor:
        values = np.asarray(sets.get(key))
        if values.ndim != 1 or values.dtype.kind not in "iu" or not len(values):
            raise self._damaged(f"{key} is no list of classes")
        return torch.from_numpy(values.astype("<i8"))

    def _damaged(self, reason: str) -> ValueError:
        size = self.file.stat().st_size
        return ValueError(
            f"{self.file} ({size} bytes) is not the published file: {reason}. {_WHERE}."
        )
