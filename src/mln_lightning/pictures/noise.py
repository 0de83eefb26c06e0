"""What the noise of a training set looks like."""

from __future__ import annotations

import torch
from matplotlib.figure import Figure
from torch import Tensor

from mln_lightning.batch import UNKNOWN
from mln_lightning.data.source import DatasetInfo, LabeledImages
from mln_lightning.noise.base import noise_rate
from mln_lightning.pictures.canvas import PLAIN, WIDTH, Box, class_names, new_figure, percent, write
from mln_lightning.pictures.panels import Tile, draw_bars, draw_matrix, draw_tiles, row_shares

_HEIGHT, _HEADING = 7.0, 6.2
_COLUMNS, _ROWS = 5, 4
_MOST_BARS = 24
_LEFT, _RIGHT = Box(0.3, 0.25, 6.0, 5.75), Box(6.7, 0.1, 6.1, 5.9)


@PLAIN
def noise_figure(
    images: LabeledImages | None,
    observed: Tensor,
    clean: Tensor,
    info: DatasetInfo,
    *,
    rows: Tensor | None = None,
    generator: torch.Generator,
) -> Figure:
    """How observed labels depend on the true classes, and some of the wrong ones.

    Where no true class is known: how often each label occurs, and some images of each.

    Args:
        images: N images, only those shown are fetched; None = without images.
        observed: ``(N,)`` int64 or ``UNKNOWN``.
        clean: ``(N,)`` int64 or ``UNKNOWN``.
        info: number and names of the classes.
        rows: ``(n,)`` int64, the images to speak of; None = all.
        generator: chooses the images that are shown.
    """
    rows = torch.arange(len(observed)) if rows is None else rows
    observed, clean = observed[rows], clean[rows]
    labelled = observed != UNKNOWN
    known = labelled & (clean != UNKNOWN)
    unlabelled = int((~labelled).sum())
    width = WIDTH if images is not None else _LEFT.left + _LEFT.width + 0.4
    rest = f", {unlabelled:,} more are unlabelled" if unlabelled else ""
    if not bool(known.any()):
        title = f"{int(labelled.sum()):,} training labels{rest}; which ones are wrong is not known"
        figure = new_figure(_HEIGHT, f"{info.name}: {title}", width=width)
        _draw_counts(figure, observed[labelled], info)
        shown = _spread(labelled, observed, _COLUMNS * _ROWS, generator)
        heading = "Some images with their observed label"
    else:
        wrong = known & (observed != clean)
        rate = percent(noise_rate(observed, clean)) if bool(wrong.any()) else "none"
        which = "" if bool(known[labelled].all()) else " of known truth"
        title = f"{rate} of {int(known.sum()):,} training labels{which} are wrong{rest}"
        figure = new_figure(_HEIGHT, f"{info.name}: {title}", width=width)
        _draw_transition(figure, observed[known], clean[known], info)
        candidates = wrong if bool(wrong.any()) else known
        shown = _spread(candidates, clean, _COLUMNS * _ROWS, generator)
        heading = "Some images with their label"
        if bool(wrong.any()):
            heading = "Some of the wrong ones: clean label → observed label"
    if images is None:
        return figure
    write(figure, _RIGHT.left, _HEADING, heading)
    names = class_names(info)
    tiles = []
    for row, label, truth in zip(
        rows[shown], observed[shown].tolist(), clean[shown].tolist(), strict=True
    ):
        moved = truth not in (label, UNKNOWN)
        caption = [names[truth], f"→ {names[label]}"] if moved else [names[label]]
        tiles.append(Tile(images.fetch(row[None])[0], caption))
    draw_tiles(figure, _RIGHT, tiles, columns=_COLUMNS, rows=_ROWS)
    return figure


def _draw_transition(figure: Figure, observed: Tensor, clean: Tensor, info: DatasetInfo) -> None:
    pairs = clean * info.num_classes + observed
    counts = torch.bincount(pairs, minlength=info.num_classes**2)
    write(figure, _LEFT.left, _HEADING, "How each class is labelled, in % of the class")
    draw_matrix(
        figure,
        _LEFT,
        row_shares(counts.view(info.num_classes, info.num_classes)),
        class_names(info),
        rows="clean label (the true class)",
        columns="observed label (what training sees)",
    )


def _draw_counts(figure: Figure, observed: Tensor, info: DatasetInfo) -> None:
    names = class_names(info)
    counts = torch.bincount(observed, minlength=info.num_classes).tolist()
    order = list(range(info.num_classes))
    heading = "Images with each label"
    if info.num_classes > _MOST_BARS:
        order.sort(key=lambda label: -counts[label])
        half = _MOST_BARS // 2
        order = order[:half] + order[-half:]
        heading += f": the {half} most and the {half} least frequent of {info.num_classes}"
    write(figure, _LEFT.left, _HEADING, heading)
    values = [counts[label] for label in order]
    labels = [names[label] for label in order]
    draw_bars(figure, _LEFT, labels, values, [f"{value:,}" for value in values])


def _spread(candidates: Tensor, classes: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Rows chosen by lot, from all classes in turn, in the order of their classes.

    Args:
        candidates: ``(N,)`` bool, what may be chosen.
        classes: ``(N,)`` int64.
        count: the most to choose.
        generator: draws.

    Returns:
        at most ``(count,)`` int64.
    """
    rows = candidates.nonzero().squeeze(1)
    rows = rows[torch.randperm(len(rows), generator=generator)]
    rows = rows[classes[rows].argsort(stable=True)]
    sizes = torch.unique_consecutive(classes[rows], return_counts=True)[1].tolist()
    turns = torch.cat([torch.arange(size) for size in sizes]) if sizes else torch.empty(0).long()
    order = torch.randperm(len(sizes), generator=generator).repeat_interleave(torch.tensor(sizes))
    chosen = (turns * max(len(sizes), 1) + order).argsort()[:count]
    return rows[chosen.sort().values]
