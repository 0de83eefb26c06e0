"""The classes of a user's own images: their names and their order."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property

_SHOWN = 8  # names that a sentence lists before it says "and n more"
_WHOLE, _NEGATIVE = re.compile(r"[0-9]+"), re.compile(r"-[0-9]+")


@dataclass(frozen=True)
class Classes:
    """Class names; the place of a name is the class's number.

    Attributes:
        names: C different names.

    Raises:
        ValueError: there are fewer than two, one comes twice, or one cannot be written down.
    """

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(same_form(str(name)) for name in self.names))
        if len(self.names) < 2:
            raise ValueError(
                f"There must be at least 2 classes, found {shown(self.names) or 'none'}."
            )
        for name, times in Counter(self.names).items():
            if times > 1:
                raise ValueError(f"The class {name!r} is named {times} times; name each once.")
            if _NEGATIVE.fullmatch(name):
                raise ValueError(
                    f"{name} cannot be a class: leave the label of an unlabelled image empty."
                )
            # A run keeps the names in a configuration file, which must be able to hold them.
            if not name or "${" in name or not _writable(name):
                raise ValueError(
                    f"{name!r} cannot be the name of a class: give it one in plain letters."
                )

    @classmethod
    def of(cls, labels: Iterable[str], given: Sequence[object] | None = None) -> Classes:
        """The classes that occur, in order: by value if all are whole numbers, else by code point.

        Args:
            labels: names that occur, as often as they like.
            given: the names in an order of their own, instead; they need not all occur.

        Raises:
            ValueError: see the class.
        """
        if given is not None:
            return cls(tuple(str(name) for name in given))
        names = sorted({same_form(label) for label in labels})
        if all(_WHOLE.fullmatch(name) for name in names):
            names.sort(key=int)
        return cls(tuple(names))

    def number(self, name: str, where: str) -> int:
        """The number of a class.

        Args:
            name: the class.
            where: what the message begins with, such as a file and its line.

        Raises:
            ValueError: there is no such class; names the nearest one.
        """
        number = self._numbers.get(same_form(name))
        if number is None:
            raise ValueError(
                f"{where}: {name!r} is not among the classes {shown(self.names)}"
                f"{nearest(name, self.names)}. Correct it, or name all classes with "
                "dataset.source.classes."
            )
        return number

    @cached_property
    def _numbers(self) -> Mapping[str, int]:
        return {name: number for number, name in enumerate(self.names)}


def same_form(text: str) -> str:
    """One form for texts that look alike: some systems write é as one character, some as two."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def nearest(word: str, known: Iterable[str], *, likeness: float = 0.5) -> str:
    """`; did you mean 'x'`, or nothing when no known word is as near as 0 (any) to 1 (equal)."""
    folded = {name.casefold(): name for name in known}
    near = get_close_matches(word.casefold(), folded, n=1, cutoff=likeness)
    return f"; did you mean {folded[near[0]]!r}" if near else ""


def shown(names: Sequence[str]) -> str:
    """`cat, dog, owl and 7 more`."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _writable(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # a file name in an unknown encoding
        return False
    return name.isprintable()
