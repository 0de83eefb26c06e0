"""What the pictures are put together from: a matrix, a grid of images, bars.

Lengths are inches; colours are told apart in gray as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Rectangle
from torch import Tensor

from mln_lightning.pictures.canvas import (
    BLUE,
    GRAY,
    INK,
    POINTS,
    Box,
    fitted,
    new_axes,
    text_width,
)

MOST_NUMBERS = 20  # classes up to which the cells of a matrix hold numbers
_NORM = PowerNorm(0.4, 0, 1)  # one per cent is seen beside ninety
_BLUES = LinearSegmentedColormap.from_list("", ["#ffffff", "#9ecae1", "#3182bd", "#08306b"])
_ORANGES = LinearSegmentedColormap.from_list("", ["#ffffff", "#fdbe85", "#e6550d", "#7f2704"])


class Tile(NamedTuple):
    """An image with its caption.

    Attributes:
        image: ``(K, H, W)`` uint8.
        lines: the caption.
        colour: of frame and caption.
    """

    image: Tensor
    lines: Sequence[str]
    colour: str = INK


def draw_matrix(
    figure: Figure, box: Box, matrix: Tensor, names: Sequence[str], *, rows: str, columns: str
) -> None:
    """Draw a matrix of fractions; blue on the diagonal, orange beside it, gray where unknown.

    Args:
        figure: to draw on.
        box: what may be covered, labels included.
        matrix: ``(C, C)`` fractions 0…1; NaN in rows about which nothing is known.
        names: C.
        rows: what a row is.
        columns: what a column is.
    """
    numbered = len(names) <= MOST_NUMBERS
    room, key = 0.42, 0.0 if numbered else 0.4  # for the name of an axis, and for the colours
    most = min(box.width, box.height - key) - room - 0.1
    named = (most - 1.1) / len(names) * POINTS > 6.5  # is there room for a line per class?
    size = min(10.0, 0.62 * (most - 1.1) / len(names) * POINTS) if named else 8.0
    size = max(size, 6.2)
    step = 1 if named else 10 ** max(1, len(str(len(names))) - 2)
    ticks = list(range(0, len(names), step))
    labels = [fitted(names[n], size, 1.1) if named else str(n) for n in ticks]
    longest = max(text_width(label, FontProperties(size=size)) for label in labels)
    side = most - max(longest, 0.3)
    cell = side / len(names)
    axes = new_axes(
        figure,
        Box(box.left + room + longest + 0.1, box.bottom + box.height - side, side, side),
    )
    values = np.ma.masked_invalid(matrix.numpy())
    diagonal = np.eye(len(names), dtype=bool)
    axes.set_facecolor("#cccccc")
    for colours, hidden in ((_ORANGES, diagonal), (_BLUES, ~diagonal)):
        part = np.ma.array(values, mask=np.ma.getmaskarray(values) | hidden)
        axes.imshow(part, cmap=colours, norm=_NORM, interpolation="nearest")
    for row in matrix.isnan().all(dim=1).nonzero().squeeze(1).tolist():
        middle, height = len(names) / 2 - 0.5, min(9.0, 0.7 * cell * POINTS)
        axes.text(middle, row, "no images", size=height, color=INK, ha="center", va="center")
    if numbered:
        _draw_numbers(axes, values, min(11.0, 0.45 * cell * POINTS))
    else:
        _draw_key(figure, box)
    axes.set_xticks(ticks, labels, size=size, parse_math=False)
    axes.set_yticks(ticks, labels, size=size, parse_math=False)
    if longest > 0.95 * cell * step:
        turn, end = (45, "right") if numbered else (90, "center")
        for label in axes.get_xticklabels():
            label.set(rotation=turn, ha=end, rotation_mode="anchor" if numbered else "default")
    axes.tick_params(length=0 if numbered else 2, pad=3)
    axes.set_xlabel(columns if named else f"{columns}, by number", size=10.5)
    axes.set_ylabel(rows if named else f"{rows}, by number", size=10.5)


def _draw_numbers(axes: Axes, values: np.ma.MaskedArray, size: float) -> None:
    """Per cent in every cell that is not zero; tenths where they fit."""
    for (row, column), value in np.ndenumerate(values.filled(0)):
        if value <= 0:
            continue
        share = 100 * value
        if len(values) <= 12 and share < 9.95:
            text = f"{share:.1f}" if share >= 0.05 else "<.1"
        else:
            text = f"{share:.0f}" if share >= 0.5 else "<1"
        colour = "white" if _NORM(value) > 0.6 else INK
        axes.text(column, row, text, size=size, color=colour, ha="center", va="center")


def _draw_key(figure: Figure, box: Box) -> None:
    """What the colours of a matrix without numbers mean, in a line at its lower end."""
    axes = new_axes(figure, Box(box.left + 0.7, box.bottom, box.width - 0.7, 0.2))
    axes.set(xlim=(0, box.width - 0.7), ylim=(0, 0.2))
    axes.axis("off")
    for place, share in enumerate((0, 1, 5, 20, 50, 100)):
        for half, colours in ((0, _ORANGES), (0.13, _BLUES)):
            colour = colours(_NORM(share / 100))
            swatch = Rectangle((0.85 * place + half, 0.04), 0.13, 0.13, color=colour)
            axes.add_patch(swatch)
        edge = Rectangle(
            (0.85 * place, 0.04), 0.26, 0.13, fill=False, edgecolor=GRAY, linewidth=0.8
        )
        axes.add_patch(edge)
        axes.text(0.85 * place + 0.32, 0.06, f"{share} %", size=8.5, color=INK)


def draw_tiles(figure: Figure, box: Box, tiles: Sequence[Tile], *, columns: int, rows: int) -> None:
    """Draw images with their captions, row by row from the upper left corner.

    Args:
        figure: to draw on.
        box: what may be covered.
        tiles: at most ``columns · rows``.
        columns: number of tiles side by side.
        rows: number of tiles above each other.
    """
    size, line = 9.0, 0.16
    width, height = box.width / columns, box.height / rows
    side = min(width - 0.14, height - line * max((len(t.lines) for t in tiles), default=0) - 0.2)
    axes = new_axes(figure, box)
    axes.set(xlim=(0, box.width), ylim=(box.height, 0))
    axes.axis("off")
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        centre = (column + 0.5) * width
        below = _draw_image(axes, tile, centre, row * height, side)
        for place, text in enumerate(tile.lines, start=1):
            axes.text(
                centre,
                below + 0.03 + place * line,
                fitted(text, size, width - 0.06),
                size=size,
                color=tile.colour,
                ha="center",
                parse_math=False,
            )


def _draw_image(axes: Axes, tile: Tile, centre: float, top: float, side: float) -> float:
    """The image as large as fits into a square of that side, with its frame; returns its end."""
    pixels = rgb(tile.image)
    scale = side / float(max(pixels.shape[:2]))
    height, width = scale * float(pixels.shape[0]), scale * float(pixels.shape[1])
    left = centre - width / 2
    axes.imshow(pixels, extent=(left, left + width, top + height, top), aspect="auto")
    edge, thickness = (GRAY, 0.8) if tile.colour == INK else (tile.colour, 2.5)
    frame = Rectangle((left, top), width, height, fill=False, edgecolor=edge, linewidth=thickness)
    frame.set_clip_on(False)
    axes.add_patch(frame)
    return top + height


def rgb(image: Tensor) -> np.ndarray:
    """``(K, H, W)`` uint8 → ``(H, W, 3)`` uint8: the first three channels, or gray."""
    if len(image) < 3:
        image = image[:1].expand(3, -1, -1)
    return image[:3].permute(1, 2, 0).contiguous().cpu().numpy()


def draw_bars(
    figure: Figure, box: Box, names: Sequence[str], values: Sequence[float], texts: Sequence[str]
) -> None:
    """Draw horizontal bars from the top down, their names at the left and texts at their ends.

    Args:
        figure: to draw on.
        box: what may be covered, names included.
        names: of at most 40 bars.
        values: lengths, not negative.
        texts: such as the values with their unit.
    """
    step = min(box.height / max(len(names), 1), 0.42)
    size = min(10.0, 0.62 * step * POINTS)
    labels = [fitted(name, size, 0.45 * box.width) for name in names]
    font = FontProperties(size=size)
    room = 0.1 + max((text_width(label, font) for label in labels), default=0.0)
    scale = (box.width - room - 0.9) / max([*values, 1e-9])
    axes = new_axes(figure, box)
    axes.set(xlim=(0, box.width), ylim=(box.height, 0))
    axes.axis("off")
    for place, (label, value, text) in enumerate(zip(labels, values, texts, strict=True), start=1):
        low, end = (place - 0.25) * step, room + scale * value
        axes.add_patch(Rectangle((room, low), end - room, -0.5 * step, color=BLUE, linewidth=0))
        base = low - 0.08 * step
        axes.text(room - 0.06, base, label, size=size, color=INK, ha="right", parse_math=False)
        axes.text(end + 0.06, base, text, size=size, color=INK, parse_math=False)


def row_shares(counts: Tensor) -> Tensor:
    """``(C, C)`` counts → float64 shares of each row; NaN in rows without any."""
    sizes = counts.sum(dim=1, keepdim=True).double()
    return torch.where(sizes > 0, counts / sizes.clamp(min=1), torch.nan)
