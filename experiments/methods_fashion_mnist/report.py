"""The table of this experiment from results.csv: methods_fashion_mnist/report.py.

Writes it between its marks in this folder's README.md and in the project's.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from statistics import mean

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "methods"))

from report import LAST, ROOT, SELECTED, Row, between, markdown, shown  # noqa: E402

NAME = "methods fashion_mnist"
NOISES = ("asym", "instance")


def read() -> list[Row]:
    with (HERE / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def table(rows: list[Row]) -> str:
    """Markdown: accuracy of the last (selected) epoch, labels right, seconds; the best first."""
    models = {row["model"] for row in rows}

    def of(model: str, noise: str) -> list[Row]:
        return [row for row in rows if (row["model"], row["noise"]) == (model, noise)]

    def score(model: str) -> float:
        return mean(float(row[LAST]) for row in rows if row["model"] == model)

    header = ["test accuracy, %: last epoch (selected)"]
    header += [f"{noise} 0.4" for noise in NOISES]
    header += [f"labels right, {noise}" for noise in NOISES] + ["seconds"]
    lines = []
    for model in sorted(models, key=score, reverse=True):
        cells = [of(model, noise) for noise in NOISES]
        seconds = [float(row["seconds.fit"]) for runs in cells for row in runs]
        lines.append(
            [
                f"`{model}`",
                *(f"{shown(c, LAST)} ({shown(c, SELECTED, deviation=False)})" for c in cells),
                *(shown(c, "labels.accuracy_after") for c in cells),
                f"{mean(seconds):.0f}",
            ]
        )
    before = [
        shown([r for r in rows if r["noise"] == noise], "labels.accuracy_before", deviation=False)
        for noise in NOISES
    ]
    lines.append(["*observed labels*", "", "", *before, ""])
    return markdown(header, lines)


def main() -> None:
    text = table(read())
    print(text)
    for page in (ROOT / "README.md", HERE / "README.md"):
        page.write_text(between(page.read_text(), NAME, text))


if __name__ == "__main__":
    main()
