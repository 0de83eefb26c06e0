"""Collect run folders into one CSV (a row per run) and one Markdown table (mean ± deviation).

python experiments/collect.py                                    outputs/ -> results.csv, results.md
python experiments/collect.py --pair metalabelnet finetune       also their difference seed by seed
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

from mln_lightning.config import other_overrides

SHOWN = {  # column of a run's row -> heading in the table; fractions, shown in percent
    "test/accuracy_last": "test accuracy, last epoch",
    "test/accuracy_selected": "test accuracy, selected epoch",
    "labels.accuracy_before": "labels right before",
    "labels.accuracy_after": "labels right after",
}

Row = dict[str, Any]


class Setting(NamedTuple):
    """What runs have in common that differ only in their seeds."""

    dataset: str
    noise: str
    rate: float
    model: str
    network: str
    other: str


def row(results: Mapping[str, Any], folder: str) -> Row:
    """One run as a flat CSV row.

    Args:
        results: the content of its results.json.
        folder: where that lies.
    """
    choices = results["choices"]
    other = (o for o in other_overrides(results["overrides"]) if not o.startswith("data_seed="))
    return {
        "dataset": choices["dataset"],
        "noise": choices["noise"],
        "rate": results["noise"]["rate_asked"],
        "model": choices["model"],
        "network": choices.get("model/network", ""),
        "other": " ".join(o for o in other if not o.startswith("model/network=")),
        "seed": results["seeds"]["seed"],
        "data_seed": results["seeds"]["data_seed"],
        "rate_measured": results["noise"]["rate_measured"],
        **results["metrics"],
        **{f"labels.{key}": value for key, value in results["labels"].items()},
        **{f"seconds.{key}": value for key, value in results["seconds"].items()},
        "device": results["device"],
        "commit": results["commit"],
        "folder": folder,
    }


def setting(run: Row) -> Setting:
    return Setting(*(run[name] for name in Setting._fields))


def seeds(run: Row) -> tuple[int, int]:
    return run["seed"], run["data_seed"]


def ordered(runs: Iterable[Row]) -> list[Row]:
    """By setting, then seeds, whatever order the folders were read in."""
    return sorted(runs, key=lambda run: (setting(run), seeds(run)))


def by_setting(runs: Iterable[Row]) -> dict[Setting, list[Row]]:
    groups = defaultdict(list)
    for run in ordered(runs):
        groups[setting(run)].append(run)
    return dict(groups)


def percent(values: Sequence[float]) -> str:
    """Mean ± sample standard deviation in percent; one value alone has no deviation."""
    if not values:
        return "-"
    text = f"{100 * mean(values):.2f}"
    return text if len(values) == 1 else f"{text} ± {100 * stdev(values):.2f}"


def paired_difference(
    runs: Iterable[Row], model: str, baseline: str, metric: str = "test/accuracy_last"
) -> dict[Setting, list[float]]:
    """Metric of `model` minus metric of `baseline`, for each pair of seeds that both have run.

    Returns:
        by the model's setting; the two settings agree in all but the model. No pair, no entry.
    """
    groups = by_setting(runs)
    differences = {}
    for here, group in groups.items():
        if here.model != model:
            continue
        theirs = {seeds(r): r for r in groups.get(here._replace(model=baseline), [])}
        pairs = [(run, theirs[seeds(run)]) for run in group if seeds(run) in theirs]
        values = [a[metric] - b[metric] for a, b in pairs if metric in a and metric in b]
        if values:
            differences[here] = values
    return differences


def table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    cells = [header, ["---"] * len(header), *lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)


def summary(runs: Iterable[Row]) -> str:
    """Markdown: a line per setting, in percent, mean ± standard deviation over its seeds."""
    groups = by_setting(runs)
    metrics = [m for m in SHOWN if any(m in run for group in groups.values() for run in group)]
    lines = [
        [
            *(str(part) or "-" for part in here),
            str(len(group)),
            *(percent([run[m] for run in group if run.get(m) is not None]) for m in metrics),
        ]
        for here, group in groups.items()
    ]
    header = ["data set", "noise", "rate", "model", "network", "other overrides", "seeds"]
    return table([*header, *(SHOWN[m] for m in metrics)], lines)


def comparison(runs: Iterable[Row], model: str, baseline: str) -> str:
    """Markdown: the paired difference of last-epoch test accuracy, in points of a percent."""
    lines = [
        [
            here.dataset,
            here.noise,
            str(here.rate),
            here.network,
            here.other or "-",
            str(len(d)),
            percent(d),
        ]
        for here, d in paired_difference(runs, model, baseline).items()
    ]
    header = ["data set", "noise", "rate", "network", "other overrides", "pairs"]
    return table([*header, f"{model} minus {baseline}, points"], lines)


def read(outputs: Path) -> list[Row]:
    """The rows of all finished runs; a damaged file is named and left out."""
    runs = []
    for path in sorted(outputs.rglob("results.json")):
        folder = path.parent.relative_to(outputs)
        if any(part.startswith(".") for part in folder.parts):
            continue  # set aside by a run that is replacing it
        try:
            runs.append(row(json.loads(path.read_text()), str(folder)))
        except (ValueError, KeyError, TypeError) as error:
            print(f"left out {path}: {error!r}", file=sys.stderr)
    return ordered(runs)


def write_csv(runs: Sequence[Row], path: Path) -> None:
    columns = list(dict.fromkeys(column for run in runs for column in run))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(runs)


def main() -> None:
    parser = argparse.ArgumentParser(description="Collect finished runs into a CSV and a table.")
    parser.add_argument("outputs", type=Path, nargs="?", default=Path("outputs"))
    parser.add_argument("--pair", nargs=2, metavar=("MODEL", "BASELINE"), help="compare by seed")
    args = parser.parse_args()
    runs = read(args.outputs) if args.outputs.is_dir() else []
    if not runs:
        sys.exit(f"no finished run (results.json) below {args.outputs}")
    text = summary(runs)
    if args.pair:
        text += "\n" + comparison(runs, *args.pair)
    write_csv(runs, args.outputs / "results.csv")
    (args.outputs / "results.md").write_text(text)
    print(text)
    print(f"{len(runs)} runs: {args.outputs / 'results.csv'}, {args.outputs / 'results.md'}")


if __name__ == "__main__":
    main()
