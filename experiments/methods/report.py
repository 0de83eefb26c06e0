"""Tables of this experiment from its results.csv: python experiments/methods/report.py.

Writes them between their marks in this folder's README.md and in the project's.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean, stdev

from mln_lightning.catalog import methods

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CELLS = (("sym", 0.4), ("asym", 0.4), ("instance", 0.4), ("sym", 0.8))
LAST, SELECTED = "test/accuracy_last", "test/accuracy_selected"

Row = dict[str, str]


def read(name: str = "results.csv") -> list[Row]:
    with (HERE / name).open(newline="") as file:
        return list(csv.DictReader(file))


def num_meta(row: Row) -> int:
    found = re.search(r"num_meta=(\d+)", row["other"])
    return int(found[1]) if found else 180


def of(rows: Iterable[Row], model: str, noise: str, rate: float | None, meta: int) -> list[Row]:
    """The runs of a cell, a row per seed."""
    return [
        row
        for row in rows
        if (row["model"], row["noise"], num_meta(row)) == (model, noise, meta)
        and (float(row["rate"]) if row["rate"] else None) == rate
    ]


def shown(runs: Sequence[Row], metric: str, *, deviation: bool = True) -> str:
    values = [100 * float(run[metric]) for run in runs if run.get(metric)]
    if not values:
        return "–"
    text = f"{mean(values):.1f}"
    return f"{text} ± {stdev(values):.1f}" if deviation and len(values) > 1 else text


def markdown(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rule = ["---"] + ["---:"] * (len(header) - 1)
    return "".join(f"| {' | '.join(line)} |\n" for line in (header, rule, *lines))


def ranking(rows: Sequence[Row], models: Iterable[str]) -> list[str]:
    """By mean accuracy of the last epoch over the three kinds of noise; the best first."""

    def score(model: str) -> float:
        cells = [of(rows, model, noise, rate, 180) for noise, rate in CELLS[:3]]
        values = [mean(float(run[LAST]) for run in runs) for runs in cells if runs]
        return mean(values) if values else 0.0

    return sorted(models, key=score, reverse=True)


def groups(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Methods that were run, by what they need, the best first."""
    there = {row["model"] for row in rows if row["noise"] != "none"}
    found: dict[str, list[str]] = {}
    for method in methods():
        if method.name in there:
            found.setdefault(method.group, []).append(method.name)
    return {name: ranking(rows, models) for name, models in found.items()}


def cost(costs: Sequence[Row], model: str) -> str:
    found = [row["flops_plain_steps"] for row in costs if row["model"] == model]
    return f"{float(found[0]):.1f}" if found else "–"


def accuracy_table(rows: Sequence[Row], costs: Sequence[Row]) -> str:
    header = [
        "test accuracy, %: last epoch (selected)",
        *(f"{noise} {rate}" for noise, rate in CELLS),
        "cost",
        "seconds",
    ]
    lines = []
    for group, models in groups(rows).items():
        lines.append([f"*{group}*", *[""] * (len(header) - 1)])
        for model in models:
            cells = [of(rows, model, noise, rate, 180) for noise, rate in CELLS]
            seconds = [float(run["seconds.fit"]) for runs in cells for run in runs]
            lines.append(
                [
                    f"`{model}`",
                    *(
                        f"{shown(runs, LAST)} ({shown(runs, SELECTED, deviation=False)})"
                        if runs
                        else "–"
                        for runs in cells
                    ),
                    cost(costs, model),
                    f"{mean(seconds):.0f}",
                ]
            )
    upper = of(rows, "cross_entropy", "none", None, 180)
    if upper:
        lines.append(["*trained on true labels*", *[""] * (len(header) - 1)])
        selected = shown(upper, SELECTED, deviation=False)
        cell = f"{shown(upper, LAST)} ({selected})"
        lines.append(["`cross_entropy noise=none`", cell, "", "", "", "1.0", ""])
    return markdown(header, lines)


def labels_table(rows: Sequence[Row]) -> str:
    """Training labels that are right after correction."""
    header = ["training labels right, %", *(f"{noise} {rate}" for noise, rate in CELLS)]
    before = [
        shown(of(rows, "cross_entropy", noise, rate, 180), "labels.accuracy_before")
        for noise, rate in CELLS
    ]
    lines = [["observed", *before]]
    lines += [
        [
            f"`{model}`",
            *(
                shown(of(rows, model, noise, rate, 180), "labels.accuracy_after")
                for noise, rate in CELLS
            ),
        ]
        for models in groups(rows).values()
        for model in models
    ]
    return markdown(header, lines)


def meta_table(rows: Sequence[Row]) -> str:
    """Test accuracy over the size of the meta set, for the methods that use one."""
    sizes = sorted({num_meta(row) for row in rows})
    cases = [(noise, size) for noise in ("sym", "asym") for size in sizes]
    header = ["test accuracy, %", *(f"{noise} 0.4, {size} clean" for noise, size in cases)]
    models = {row["model"] for row in rows if num_meta(row) != 180}
    lines = [
        [f"`{m}`", *(shown(of(rows, m, noise, 0.4, size), LAST) for noise, size in cases)]
        for m in ranking(rows, models)
    ]
    return markdown(header, lines)


def tables() -> dict[str, str]:
    """Markdown tables by the name of their marks."""
    rows, costs = read(), read("costs.csv")
    return {
        "methods accuracy": accuracy_table(rows, costs),
        "methods labels": labels_table(rows),
        "methods meta": meta_table(rows),
    }


def between(page: str, name: str, table: str) -> str:
    """The page with a table between its marks; unchanged where it has none."""
    marks = f"<!-- {name} -->", f"<!-- /{name} -->"
    pattern = re.compile(f"({marks[0]}\n).*?({marks[1]})", re.DOTALL)
    return pattern.sub(lambda found: f"{found[1]}\n{table}\n{found[2]}", page)


def main() -> None:
    for name, table in tables().items():
        print(f"### {name}\n\n{table}")
        for page in (ROOT / "README.md", HERE / "README.md"):
            page.write_text(between(page.read_text(), name, table))


if __name__ == "__main__":
    main()
