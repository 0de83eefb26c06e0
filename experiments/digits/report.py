"""Tables and figure of this experiment from its results.csv: python experiments/digits/report.py.

Prints the tables, which the README shows, and writes figure.svg beside this file.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean, stdev

HERE = Path(__file__).parent
MODELS = ("cross_entropy", "clean_only", "finetune", "metalabelnet")
CONDITIONS = (("asym", 0.4), ("sym", 0.4), ("sym", 0.6))

Row = dict[str, str]


def read() -> list[Row]:
    with (HERE / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def main_grid(rows: Sequence[Row]) -> list[Row]:
    """Runs of the experiment with nothing changed but the size of the meta set."""
    plain = ("experiment=digits num_meta=60", "experiment=digits num_meta=180")
    return [row for row in rows if row["other"] in plain]


def one_split(rows: Sequence[Row]) -> list[Row]:
    """Runs of the plain command: one split and noise, several seeds of training."""
    return [row for row in rows if not row["other"]]


def num_meta(row: Row) -> int:
    return 60 if "num_meta=60" in row["other"] else 180


def values(
    rows: Sequence[Row], model: str, noise: str, rate: float, meta: int, metric: str
) -> dict[str, float]:
    """One metric in percent by seed of training."""
    return {
        row["seed"]: 100 * float(row[metric])
        for row in rows
        if (row["model"], row["noise"], float(row["rate"]), num_meta(row))
        == (model, noise, rate, meta)
    }


def shown(numbers: Sequence[float], digits: int = 1) -> str:
    if len(numbers) < 2:
        return "-"
    return f"{mean(numbers):.{digits}f} ± {stdev(numbers):.{digits}f}"


def difference(rows: Sequence[Row], noise: str, rate: float, meta: int) -> str:
    ours, theirs = (
        values(rows, model, noise, rate, meta, "test/accuracy_last")
        for model in ("metalabelnet", "finetune")
    )
    return shown([ours[seed] - theirs[seed] for seed in ours if seed in theirs], 2)


def markdown(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = ["---"] + ["---:"] * (len(header) - 1)
    return "".join(f"| {' | '.join(line)} |\n" for line in (header, rule, *lines))


def accuracy_table(rows: Sequence[Row], metric: str, models: Sequence[str] = MODELS) -> str:
    header = [
        "test accuracy, %" if metric.startswith("test") else "training labels right, %",
        *(f"{noise} {rate}" for noise, rate in CONDITIONS),
    ]
    lines = [
        [f"`{m}`", *(shown([*values(rows, m, n, r, 180, metric).values()]) for n, r in CONDITIONS)]
        for m in models
    ]
    if metric.startswith("test"):
        pairs = [difference(rows, noise, rate, 180) for noise, rate in CONDITIONS]
        lines.append(["metalabelnet − finetune, paired", *pairs])
    else:
        before = "labels.accuracy_before"
        observed = (values(rows, "finetune", n, r, 180, before) for n, r in CONDITIONS)
        lines.insert(0, ["observed labels", *(shown([*cell.values()]) for cell in observed)])
    return markdown(header, lines)


def meta_table(rows: Sequence[Row]) -> str:
    cases = [(noise, meta) for noise in ("asym", "sym") for meta in (180, 60)]
    header = ["test accuracy, %", *(f"{noise} 0.4, {meta} clean" for noise, meta in cases)]
    metric = "test/accuracy_last"
    lines = [
        [f"`{m}`", *(shown([*values(rows, m, n, 0.4, k, metric).values()]) for n, k in cases)]
        for m in MODELS[1:]
    ]
    lines.append(
        ["metalabelnet − finetune, paired", *(difference(rows, n, 0.4, k) for n, k in cases)]
    )
    return markdown(header, lines)


def split_table(rows: Sequence[Row]) -> str:
    cases = CONDITIONS[:2]
    lines = [
        [
            f"`{m}`",
            *(
                f"{shown(cell)}, least {min(cell):.1f}"
                for cell in (
                    [*values(rows, m, n, r, 180, "test/accuracy_last").values()] for n, r in cases
                )
            ),
        ]
        for m in MODELS[2:]
    ]
    lines.append(
        ["metalabelnet − finetune, paired", *(difference(rows, n, r, 180) for n, r in cases)]
    )
    return markdown(["test accuracy, %", *(f"{n} {r}" for n, r in cases)], lines)


def ablation_table(rows: Sequence[Row]) -> str:
    """MetaLabelNet with settings changed, and as it is by default."""
    kept = [
        row
        for row in rows
        if row["model"] == "metalabelnet" and row["other"] and num_meta(row) == 180
    ]
    changes: dict[str, dict[str, list[float]]] = {}
    for row in kept:
        if float(row["rate"]) != 0.4:
            continue
        change = row["other"].replace("experiment=digits", "").replace("num_meta=180", "").strip()
        cell = changes.setdefault(change.replace("model.", ""), {})
        cell.setdefault(row["noise"], []).append(100 * float(row["test/accuracy_last"]))
    lines = [
        [
            f"`{change}`" if change else "default",
            *(f"{shown(cell[n])}, least {min(cell[n]):.1f}" for n in ("asym", "sym")),
        ]
        for change, cell in sorted(changes.items())
        if {"asym", "sym"} <= cell.keys()
    ]
    return markdown(["test accuracy, %", "asym 0.4", "sym 0.4"], lines)


def tables(rows: Sequence[Row]) -> dict[str, str]:
    """Markdown tables by name."""
    grid = main_grid(rows)
    return {
        "accuracy": accuracy_table(grid, "test/accuracy_last"),
        "labels": accuracy_table(grid, "labels.accuracy_after", ("cross_entropy", *MODELS[2:])),
        "meta": meta_table(grid),
        "one split": split_table(one_split(rows)),
        "ablation": ablation_table(rows),
    }


def figure(rows: Sequence[Row], path: Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    plt.rcParams["svg.hashsalt"] = "mln"
    colours = {"clean_only": "#999999", "finetune": "#2b6cb0", "metalabelnet": "#c0392b"}
    drawing, panels = plt.subplots(1, 2, figsize=(8, 3.1), sharey=True, layout="constrained")
    for axes, noise in zip(panels, ("asym", "sym"), strict=True):
        for model, colour in colours.items():
            get: Callable[[int], list[float]] = lambda k, m=model, n=noise: [  # noqa: E731
                *values(rows, m, n, 0.4, k, "test/accuracy_last").values()
            ]
            sizes = [k for k in (60, 180) if len(get(k)) > 1]
            axes.errorbar(
                sizes,
                [mean(get(k)) for k in sizes],
                [stdev(get(k)) for k in sizes],
                label=model,
                color=colour,
                marker="o",
                capsize=3,
            )
        axes.set_title(f"{noise} noise, rate 0.4", fontsize=10)
        axes.set_xticks([60, 180])
        axes.set_xlim(30, 210)
        axes.set_xlabel("clean images")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("test accuracy, %")
    panels[0].legend(frameon=False, fontsize=9, loc="lower right")
    drawing.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


if __name__ == "__main__":
    runs = read()
    text = "\n".join(f"### {name}\n\n{table}" for name, table in tables(runs).items())
    figure(main_grid(runs), HERE / "figure.svg")
    print(text)
