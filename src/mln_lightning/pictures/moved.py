"""Which labels the trained model would change, the surest first."""

from __future__ import annotations

from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor

from mln_lightning.batch import UNKNOWN
from mln_lightning.data.source import DatasetInfo, LabeledImages
from mln_lightning.pictures.canvas import (
    GREEN,
    INK,
    PLAIN,
    RED,
    Box,
    class_names,
    new_figure,
    percent,
    write,
)
from mln_lightning.pictures.panels import Tile, draw_tiles

_COLUMNS, _ROWS, _ROW = 9, 4, 1.65  # the last one in inches


class MovedLabel(NamedTuple):
    """A label that the model would change.

    Attributes:
        row: of the image.
        observed: class before.
        corrected: class after.
        confidence: probability of the corrected class, all of which has moved there.
        truth: the true class or ``UNKNOWN``.
    """

    row: int
    observed: int
    corrected: int
    confidence: float
    truth: int


def moved_labels(
    rows: Tensor, observed: Tensor, probabilities: Tensor, clean: Tensor, *, most: int
) -> list[MovedLabel]:
    """The labels that moved most, those with the most probability on another class.

    An observed label is all on one class. What has moved from there to the corrected class is that
    class's probability. Equal ones keep the order of their rows.

    Args:
        rows: ``(n,)`` int64 rows of the images.
        observed: ``(n,)`` int64 or ``UNKNOWN``, which cannot move.
        probabilities: ``(n, C)`` after correction.
        clean: ``(n,)`` int64 or ``UNKNOWN``.
        most: number of labels at most.
    """
    confidence, corrected = probabilities.max(dim=1)
    changed = ((observed != UNKNOWN) & (observed != corrected)).nonzero().squeeze(1)
    chosen = changed[confidence[changed].argsort(descending=True, stable=True)[:most]]
    columns = (rows, observed, corrected, confidence, clean)
    return [MovedLabel(*row) for row in zip(*(c[chosen].tolist() for c in columns), strict=True)]


@PLAIN
def moved_figure(
    images: LabeledImages,
    rows: Tensor,
    observed: Tensor,
    probabilities: Tensor,
    clean: Tensor,
    info: DatasetInfo,
) -> Figure:
    """The images whose label moved most, see `moved_labels`, and whether that was right.

    Args:
        images: fetched by row, only those shown.
        rows: ``(n,)`` int64 rows of the images.
        observed: ``(n,)`` int64 or ``UNKNOWN``.
        probabilities: ``(n, C)`` after correction.
        clean: ``(n,)`` int64 or ``UNKNOWN``.
        info: names of the classes.
    """
    corrected = probabilities.argmax(dim=1)
    changed = (observed != UNKNOWN) & (observed != corrected)
    known = changed & (clean != UNKNOWN)
    labelled = int((observed != UNKNOWN).sum())
    title = f"{info.name}: {int(changed.sum()):,} of {labelled:,} training labels changed"
    if bool(known.any()):
        right = float((corrected == clean)[known].double().mean())
        where = "" if torch.equal(known, changed) else f" (of {int(known.sum()):,} of known truth)"
        title += f", {percent(right)} of the changes are right{where}"
    moved = moved_labels(rows, observed, probabilities, clean, most=_COLUMNS * _ROWS)
    rows_shown = -(-len(moved) // _COLUMNS)
    height = 1.1 + rows_shown * _ROW
    figure = new_figure(height, title)
    if not moved:
        write(figure, 0.3, 0.3, "The classifier agrees with every observed label.")
        return figure
    text = "The surest changes: observed label → corrected label, confidence"
    if bool(known.any()):
        text += "     (green ✓: the true class;  red ✗: not the true class, which follows)"
    write(figure, 0.3, height - 0.82, text)
    names = class_names(info)
    tiles = [_tile(images.fetch(torch.tensor([label.row]))[0], label, names) for label in moved]
    draw_tiles(
        figure, Box(0.2, 0.05, 12.6, rows_shown * _ROW), tiles, columns=_COLUMNS, rows=rows_shown
    )
    return figure


def _tile(image: Tensor, label: MovedLabel, names: list[str]) -> Tile:
    sure = f"{100 * label.confidence:.0f} %"
    colour = INK
    if label.truth != UNKNOWN:
        right = label.truth == label.corrected
        colour = GREEN if right else RED
        sure += " ✓" if right else f" ✗ {names[label.truth]}"
    return Tile(image, [names[label.observed], f"→ {names[label.corrected]}", sure], colour)
