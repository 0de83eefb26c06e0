"""How many samples: a count, a share, or so many of each class. No torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

_PATTERN = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>%|/class)?")
_ALLOWED = "a count (180), a share (0.1 or 10%), or a number of each class (20/class)"


@dataclass(frozen=True)
class SampleSize:
    """A number of samples to draw.

    Attributes:
        amount: a whole number, or a share in (0, 1).
        unit: what ``amount`` counts.
    """

    amount: float
    unit: Literal["images", "share", "of each class"]

    @classmethod
    def parse(cls, name: str, value: object) -> SampleSize:
        """Read ``180``, ``0.1``, ``"10%"`` or ``"20/class"``.

        Args:
            name: what messages call it, such as ``num_meta``.
            value: as configured.

        Raises:
            ValueError: it is none of these.
        """
        found = None if isinstance(value, bool) else _PATTERN.fullmatch(str(value).strip())
        if found is None:
            raise ValueError(f"{name}={value} is not a size; give {_ALLOWED}.")
        number, unit = float(found["number"]), found["unit"]
        if unit == "%":
            number, unit = number / 100, "share"
        elif unit is None and "." in found["number"]:
            unit = "share"
        if unit == "share" and not 0 < number < 1:
            raise ValueError(f"{name}={value} is not a share between 0 and 1; give {_ALLOWED}.")
        if unit == "share":
            return cls(number, "share")
        if number != int(number):
            raise ValueError(f"{name}={value} is not a whole number; give {_ALLOWED}.")
        return cls(number, "of each class" if unit else "images")

    def count(self, total: int, num_classes: int) -> int:
        """Samples in all, of ``total`` in ``num_classes`` classes; shares are rounded."""
        match self.unit:
            case "images":
                return int(self.amount)
            case "share":
                return round(self.amount * total)
            case _:
                return int(self.amount) * num_classes
