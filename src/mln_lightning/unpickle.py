"""Pickled arrays from files of strangers, read without running code."""

from __future__ import annotations

import pickle
from typing import IO, Any

_PLAIN_ARRAYS = {  # all that a pickled array refers to, under numpy's old and new module names
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.numeric", "_frombuffer"),
    ("_codecs", "encode"),
}


class _ArrayUnpickler(pickle.Unpickler):
    """Looks up nothing but what arrays are built with."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _PLAIN_ARRAYS:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is no plain data")
        return super().find_class(module, name)


def load_arrays(file: IO[bytes], *, encoding: str = "ASCII") -> Any:
    """Read a pickle of numpy arrays, numbers, strings, lists and dictionaries.

    Any other pickle is refused before a call that it asks for is made.

    Args:
        file: open for reading bytes.
        encoding: how Python 2 stored its strings; ``latin1`` for arrays.

    Raises:
        Exception: of any type, since a pickle is a program and a damaged one a wrong program; a
            caller that is to survive catches them all.
    """
    return _ArrayUnpickler(file, encoding=encoding).load()
