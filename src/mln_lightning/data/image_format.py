"""Which size and how many channels every image of a set gets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

Fit = Literal["crop", "squash"]
Channels = Literal[1, 3]


class Cut(NamedTuple):
    """How an image is scaled and cropped.

    Attributes:
        size: (width, height) of the result.
        scaled: (width, height) of the whole image on the scale of the result.
        box: (left, upper, right, lower) of the result in ``scaled``.
    """

    size: tuple[int, int]
    scaled: tuple[int, int]
    box: tuple[int, int, int, int]


@dataclass(frozen=True)
class ImageFormat:
    """The common shape of images of many sizes: scaled first, then cropped in the centre.

    Attributes:
        size: side of the square result, or (height, width).
        resize: length that the shorter side (``fit="crop"``) or each side (``fit="squash"``) is
            scaled to before the crop, at least ``size``; None = as little as covers ``size``.
        fit: "crop" keeps the aspect and loses the margins, "squash" loses the aspect.
        channels: 1 = gray, 3 = RGB.

    Raises:
        ValueError: a length is not positive, ``resize`` is below ``size``, or a choice is unknown.
    """

    size: int | tuple[int, int] = 224
    resize: int | None = None
    fit: Fit = "crop"
    channels: Channels = 3

    def __post_init__(self) -> None:
        if not isinstance(self.size, int):  # configuration files bring a list
            object.__setattr__(self, "size", tuple(int(side) for side in self.size))
        sides = (self.size,) if isinstance(self.size, int) else self.size
        if len(sides) > 2 or not sides or min(sides) < 1:
            raise ValueError(
                f"An image size must be one positive number, or (height, width), got {self.size}."
            )
        if self.resize is not None and self.resize < max(sides):
            raise ValueError(
                f"Images cannot be scaled to {self.resize} and then cropped to {max(sides)}: give "
                "a resize that is at least as large as size, or none."
            )
        if self.fit not in get_args(Fit):
            raise ValueError(f"The fit must be crop or squash, got {self.fit!r}.")
        if self.channels not in get_args(Channels):
            raise ValueError(f"Images have 1 or 3 channels, got {self.channels!r}.")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(K, H, W) of every image."""
        height, width = (self.size,) * 2 if isinstance(self.size, int) else self.size
        return self.channels, height, width

    def cut(self, width: int, height: int) -> Cut:
        """How an image of this size is scaled and cropped; rounded as torchvision does."""
        _, rows, columns = self.shape
        if self.fit == "squash":
            scaled = (columns, rows) if self.resize is None else (self.resize, self.resize)
        elif self.resize is not None:
            scaled = _shorter_side_to(self.resize, width, height)
        elif columns * height > rows * width:
            scaled = (columns, max(rows, columns * height // width))
        else:
            scaled = (max(columns, rows * width // height), rows)
        left, upper = round((scaled[0] - columns) / 2), round((scaled[1] - rows) / 2)
        return Cut((columns, rows), scaled, (left, upper, left + columns, upper + rows))


def _shorter_side_to(length: int, width: int, height: int) -> tuple[int, int]:
    if width <= height:
        return length, length * height // width
    return length * width // height, length
