"""The table of CIFAR-10 runs from results.csv: cifar10/report.py [cifar10 | cifar10_subset].

Writes it between its marks in the README.md beside the results and in the project's.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "methods"))

from report import LAST, ROOT, SELECTED, Row, between, markdown, shown  # noqa: E402

COLUMNS = {"sym 0.4": ("cifar10", "sym"), "asym 0.4": ("cifar10", "asym")}
COLUMNS |= {"CIFAR-10N worst": ("cifar10n", "human")}
MODELS = ("cross_entropy", "finetune", "metalabelnet")


def table(rows: list[Row]) -> str:
    """Markdown: accuracy of the last (selected) epoch, seeds, and labels right."""

    def of(model: str, place: tuple[str, str]) -> list[Row]:
        return [r for r in rows if r["model"] == model and (r["dataset"], r["noise"]) == place]

    header = ["test accuracy, %: last epoch (selected)", *COLUMNS, "seeds"]
    header += [f"labels right, {name}" for name in COLUMNS]
    lines = []
    for model in MODELS:
        cells = [of(model, place) for place in COLUMNS.values()]
        counts = sorted({len(runs) for runs in cells})
        lines.append(
            [
                f"`{model}`",
                *(f"{shown(c, LAST)} ({shown(c, SELECTED, deviation=False)})" for c in cells),
                "–".join(map(str, counts)),
                *(shown(c, "labels.accuracy_after") for c in cells),
            ]
        )
    before = [
        shown([r for m in MODELS for r in of(m, place)], "labels.accuracy_before", deviation=False)
        for place in COLUMNS.values()
    ]
    lines.append(["*observed labels*", "", "", "", "", *before])
    return markdown(header, lines)


def main(name: str = "cifar10") -> None:
    folder = HERE.parent / name
    with (folder / "results.csv").open(newline="") as file:
        text = table(list(csv.DictReader(file)))
    print(text)
    for page in (ROOT / "README.md", folder / "README.md"):
        page.write_text(between(page.read_text(), name, text))


if __name__ == "__main__":
    main(*sys.argv[1:])
