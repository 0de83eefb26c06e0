"""Drawing without pyplot: a figure, places on it in inches, texts that fit, and writing it.

Nothing global is left changed, no display is needed, and the same input gives the same bytes.
"""

from __future__ import annotations

import io
from bisect import bisect_right
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.textpath import text_to_path

from mln_lightning.data.source import DatasetInfo
from mln_lightning.files import replacing

INK, GRAY, BLUE, GREEN, RED = "#222222", "#999999", "#3b75af", "#1a7f37", "#c62828"
POINTS = 72  # per inch
WIDTH = 13.0
_DPI = 100

PLAIN = style.context("default")
"""Decorator: a user's matplotlibrc (TeX, other fonts) changes no picture and breaks none."""


class Box(NamedTuple):
    """A rectangle of a figure, in inches from its lower left corner."""

    left: float
    bottom: float
    width: float
    height: float


def new_figure(height: float, title: str, *, width: float = WIDTH) -> Figure:
    """An empty figure with a title in its upper left corner."""
    figure = Figure(figsize=(width, height), dpi=_DPI, facecolor="white")
    FigureCanvasAgg(figure)
    text = fitted(title, 14, width - 0.6, bold=True)
    write(figure, 0.3, height - 0.42, text, size=14, weight="bold")
    return figure


def write(
    figure: Figure, x: float, y: float, text: str, *, size: float = 10.5, weight: str = "normal"
) -> None:
    """Text with its left end and baseline at ``(x, y)`` inches."""
    width, height = figure.get_size_inches()
    place = (x / width, y / height)
    figure.text(*place, text, size=size, weight=weight, color=INK, parse_math=False)


@PLAIN
def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG file, complete or not at all; the same figure gives the same bytes.

    Raises:
        OSError: the file could not be written.
    """
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    with replacing(path) as temporary:
        temporary.write_bytes(content.getvalue())


def class_names(info: DatasetInfo) -> list[str]:
    """C names that can be drawn: ``class 3`` where there is none, or none in our font's letters."""
    names = [" ".join(name.split()) for name in info.classes] or [""] * info.num_classes
    return [
        name if name and all(ord(letter) in _drawable() for letter in name) else f"class {number}"
        for number, name in enumerate(names)
    ]


def fitted(text: str, size: float, width: float, *, bold: bool = False) -> str:
    """The text, or as much of its beginning as fits into ``width`` inches, and an ellipsis."""
    font = FontProperties(size=size, weight="bold" if bold else "normal")
    if text_width(text, font) <= width:
        return text
    kept = bisect_right(range(len(text)), width, key=lambda n: text_width(f"{text[:n]}…", font))
    return f"{text[: max(kept - 1, 0)].rstrip()}…"


def text_width(text: str, font: FontProperties) -> float:
    """Width of a line in inches."""
    return text_to_path.get_text_width_height_descent(text, font, ismath=False)[0] / POINTS


def percent(fraction: float) -> str:
    """Such as ``39.9 %``."""
    return f"{100 * fraction:.1f} %"


def new_axes(figure: Figure, box: Box) -> Axes:
    """Axes that fill the box."""
    width, height = figure.get_size_inches()
    place = (box.left / width, box.bottom / height, box.width / width, box.height / height)
    return figure.add_axes(place)


@lru_cache(maxsize=1)
def _drawable() -> frozenset[int]:
    """Letters of the font that comes with matplotlib."""
    return frozenset(get_font(findfont(FontProperties(family="DejaVu Sans"))).get_charmap())
