"""What a classifier takes for what."""

from __future__ import annotations

from matplotlib.figure import Figure
from torch import Tensor

from mln_lightning.data.source import DatasetInfo
from mln_lightning.pictures.canvas import PLAIN, Box, class_names, new_figure, percent, write
from mln_lightning.pictures.panels import draw_bars, draw_matrix, row_shares

_MOST = 12
_LEFT, _RIGHT = Box(0.3, 0.25, 6.0, 5.75), Box(6.9, 0.9, 5.8, 5.1)


@PLAIN
def confusion_figure(counts: Tensor, info: DatasetInfo) -> Figure:
    """A confusion matrix, and its largest entries beside the diagonal by name.

    Args:
        counts: ``(C, C)`` test images by true class (row) and predicted class.
        info: names of the classes.
    """
    counts = counts.cpu()
    total = int(counts.sum())
    names = class_names(info)
    title = f"{info.name}: no test images"
    if total:
        accuracy = percent(int(counts.diagonal().sum()) / total)
        title = f"{info.name}: {accuracy} of {total:,} test images are classified correctly"
    figure = new_figure(7.0, title)
    shares = row_shares(counts)
    write(figure, _LEFT.left, 6.2, "What each class is taken for, in % of the class")
    draw_matrix(
        figure, _LEFT, shares, names, rows="clean label (the true class)", columns="predicted class"
    )
    mistakes = shares.nan_to_num(0).fill_diagonal_(0).flatten()
    largest = mistakes.argsort(descending=True, stable=True)[:_MOST]
    largest = largest[mistakes[largest] > 0]
    if not len(largest):
        write(figure, _RIGHT.left, 6.2, "No mistakes")
        return figure
    write(figure, _RIGHT.left, 6.2, "Most frequent mistakes: clean label → predicted class")
    texts = [percent(float(mistakes[cell])) for cell in largest]
    pairs = [(int(cell) // len(names), int(cell) % len(names)) for cell in largest]
    labels = [f"{names[truth]} → {names[guess]}" for truth, guess in pairs]
    draw_bars(figure, _RIGHT, labels, mistakes[largest].tolist(), texts)
    return figure
