"""Draws how_it_works.svg: one MetaLabelNet iteration. Run: python docs/how_it_works.py [file]."""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

NOISY, CLEAN, PHI = "#f6d5c9", "#cfe8d5", "#fff1c2"
INK, META = "#333333", "#b03a2e"
W, H = 2.5, 0.86


def box(axes: Axes, x: float, y: float, title: str, text: str, colour: str) -> None:
    axes.add_patch(
        FancyBboxPatch(
            (x, y), W, H, boxstyle="round,pad=0.06", facecolor=colour, edgecolor=INK, linewidth=1
        )
    )
    axes.text(x + W / 2, y + 0.62, title, ha="center", va="center", fontsize=10, weight="bold")
    axes.text(x + W / 2, y + 0.24, text, ha="center", va="center", fontsize=9.5)


def arrow(
    axes: Axes,
    start: tuple[float, float],
    end: tuple[float, float],
    text: str = "",
    *,
    bend: float = 0.0,
    colour: str = INK,
    linestyle: str = "-",
) -> None:
    style = {
        "arrowstyle": "-|>",
        "connectionstyle": f"arc3,rad={bend}",
        "color": colour,
        "linestyle": linestyle,
        "linewidth": 1.4,
    }
    axes.annotate("", end, start, arrowprops=style)
    if text:
        middle = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2 + 0.16)
        axes.text(*middle, text, ha="center", fontsize=9, color=INK)


def main(path: Path) -> None:
    plt.rcParams["svg.hashsalt"] = "mln"  # the same drawing is the same file
    figure, axes = plt.subplots(figsize=(9.4, 3.9))
    axes.set_xlim(-0.15, 13.0)
    axes.set_ylim(-0.75, 4.35)
    axes.axis("off")
    box(axes, 0, 3.1, "noisy batch", "images x", NOISY)
    box(axes, 3.45, 3.1, "frozen encoder", "features f(x)", NOISY)
    box(axes, 6.9, 3.1, "label generator φ", "ŷ = softmax(W f + b)", PHI)
    box(axes, 0, 1.55, "classifier θ", "p = softmax(network(x))", NOISY)
    box(axes, 6.9, 1.55, "virtual update", "θ' = θ − α ∂θ KL(p ‖ ŷ)", PHI)
    box(axes, 10.35, 1.55, "meta loss", "CE(network(xᵐ; θ'), yᵐ)", CLEAN)
    box(axes, 10.35, 0.0, "clean meta batch", "xᵐ, yᵐ: labels you trust", CLEAN)
    box(axes, 3.45, 0.0, "conventional update", "θ ← θ − lr ∂θ KL(p ‖ ŷ)", NOISY)

    arrow(axes, (2.62, 3.53), (3.35, 3.53))
    arrow(axes, (6.07, 3.53), (6.8, 3.53))
    arrow(axes, (1.25, 3.0), (1.25, 2.52))
    arrow(axes, (8.15, 3.0), (8.15, 2.52), "")
    axes.text(8.3, 2.74, "1", fontsize=11, weight="bold")
    arrow(axes, (2.62, 1.98), (6.8, 1.98), "the same forward pass")
    arrow(axes, (9.52, 1.98), (10.25, 1.98))
    axes.text(9.78, 2.14, "2", fontsize=11, weight="bold")
    arrow(axes, (11.6, 0.97), (11.6, 1.47))
    arrow(axes, (11.6, 2.52), (9.52, 3.53), bend=0.3, colour=META, linestyle="--")
    axes.text(10.5, 3.78, "3  φ ← φ − β ∂φ meta loss", fontsize=9.5, color=META)
    arrow(axes, (7.0, 3.02), (5.6, 0.97), bend=0.12)
    axes.text(4.62, 1.3, "4  new ŷ", fontsize=9.5)
    arrow(axes, (1.25, 1.47), (3.35, 0.45), bend=0.3)
    axes.text(
        6.42,
        -0.55,
        "Every iteration: would training on these soft labels help on the labels you trust? "
        "Change the generator so that it would.",
        ha="center",
        fontsize=10,
        style="italic",
    )
    figure.subplots_adjust(0, 0, 1, 1)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_suffix(".svg"))
