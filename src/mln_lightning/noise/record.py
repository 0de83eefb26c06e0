"""A record of the noise of one run, enough to repeat it elsewhere."""

from __future__ import annotations

import hashlib
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mln_lightning.files import replacing


@dataclass(frozen=True, eq=False)
class NoiseRecord:
    """Which labels a run saw.

    Attributes:
        observed: ``(N,)`` int64 observed labels of the full training set.
        clean: ``(N,)`` int64 true classes, or ``UNKNOWN``.
        index: ``(n,)`` int64 rows of the training part, what is left after validation and meta set.
        data_seed: seed of noise and split.
        rate_asked: noise rate asked for, or None.
        rate_measured: fraction of wrong labels in the training part, or None if unknown.
    """

    observed: Tensor
    clean: Tensor
    index: Tensor
    data_seed: int
    rate_asked: float | None
    rate_measured: float | None

    @property
    def sha256(self) -> str:
        """Checksum over all fields, 64 hexadecimal digits."""
        digest = hashlib.sha256()
        for name, array in self._arrays().items():
            digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
            digest.update(array.tobytes())
        return digest.hexdigest()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write an ``.npz`` file; an existing one is replaced in one go, or not at all."""
        arrays = {**self._arrays(), "sha256": np.array(self.sha256)}
        with replacing(Path(path)) as temporary, temporary.open("wb") as file:
            # The stub takes every keyword for the flag of newer numpy versions.
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> NoiseRecord:
        """Read a file written by `save` and compare its checksum.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is damaged or is no noise record.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"There is no noise record at {path}.")
        try:
            with path.open("rb") as handle, np.load(handle, allow_pickle=False) as file:
                fields = {name: file[name] for name in file.files}
            stored = str(fields.pop("sha256"))
            record = cls(
                observed=torch.from_numpy(fields["observed"]),
                clean=torch.from_numpy(fields["clean"]),
                index=torch.from_numpy(fields["index"]),
                data_seed=int(fields["data_seed"]),
                rate_asked=_number_or_none(fields["rate_asked"]),
                rate_measured=_number_or_none(fields["rate_measured"]),
            )
        except (KeyError, ValueError, TypeError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path} is damaged or is not a noise record: {error}.") from error
        if record.sha256 != stored:
            raise ValueError(
                f"The noise record {path} is damaged: its checksum is {record.sha256}, "
                f"expected {stored}."
            )
        return record

    def _arrays(self) -> dict[str, np.ndarray]:
        return {
            "observed": _little_endian(self.observed),
            "clean": _little_endian(self.clean),
            "index": _little_endian(self.index),
            "data_seed": np.array(self.data_seed, dtype="<i8"),
            "rate_asked": _float_array(self.rate_asked),
            "rate_measured": _float_array(self.rate_measured),
        }


def _little_endian(values: Tensor) -> np.ndarray:
    return values.numpy().astype("<i8")


def _float_array(value: float | None) -> np.ndarray:
    return np.array(np.nan if value is None else value, dtype="<f8")


def _number_or_none(value: np.ndarray) -> float | None:
    return None if np.isnan(value) else float(value)
