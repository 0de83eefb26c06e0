"""MetaLabelNet with a few settings changed at a time: an experiment's folder lists them.

python experiments/vary.py defaults run       train; continues where it was stopped
python experiments/vary.py defaults report    the table of its README.md from its results.csv
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
from pathlib import Path
from statistics import mean, stdev

HERE = Path(__file__).parent
NOISES = ("sym", "asym")
METRICS = ("val/accuracy", "test/accuracy_last", "labels.accuracy_after")

Change = tuple[str, ...]
Row = dict[str, str]


def changes(experiment: str) -> list[Change]:
    """Overrides of each line of the experiment's ``changes.txt``, after a line without any."""
    lines = (HERE / experiment / "changes.txt").read_text().splitlines()
    return [(), *(tuple(line.split()) for line in lines)]


def run(experiment: str, outputs: Path) -> None:
    for change in changes(experiment):
        command = [sys.executable, "-m", "mln_lightning.run", f"experiment={experiment}"]
        command += [f"hydra.sweep.dir={outputs}", *change]
        print(" ".join(command[1:]), flush=True)
        subprocess.run(command, check=False)


def of(rows: list[Row], experiment: str, change: Change, noise: str) -> list[Row]:
    """The runs of a change; which method it chooses has a column of its own."""
    model = next((c.removeprefix("model=") for c in change if c.startswith("model=")), None)
    wanted = {f"experiment={experiment}", *(c for c in change if not c.startswith("model="))}
    return [
        row
        for row in rows
        if row["noise"] == noise
        and row["model"] == (model or "metalabelnet")
        and set(row["other"].replace("=True", "=true").split()) == wanted  # as Hydra writes it
    ]


def shown(values: list[float]) -> str:
    if not values:
        return "–"
    text = f"{100 * mean(values):.1f}"
    return f"{text} ± {100 * stdev(values):.1f}" if len(values) > 1 else text


def table(experiment: str, rows: list[Row]) -> str:
    """Markdown: a line per change; the validation labels are as noisy as the training labels."""
    names = ("val.", "test", "labels right")
    header = ["changed", *(f"{noise}: {name}" for noise in NOISES for name in names)]
    lines = ["| " + " | ".join(header) + " |", "| --- " + "| ---: " * (len(header) - 1) + "|"]
    for change in changes(experiment):
        cells = [
            shown([float(row[metric]) for row in of(rows, experiment, change, noise)])
            for noise in NOISES
            for metric in METRICS
        ]
        name = " ".join(f"`{c.removeprefix('model.')}`" for c in change) or "nothing"
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def report(experiment: str) -> None:
    with (HERE / experiment / "results.csv").open(newline="") as file:
        text = table(experiment, list(csv.DictReader(file)))
    page = HERE / experiment / "README.md"
    head, mark, rest = page.read_text().partition("<!-- table -->\n")
    _, end, tail = rest.partition("<!-- /table -->")
    page.write_text(f"{head}{mark}\n{text}\n{end}{tail}")
    print(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("experiment", choices=[p.parent.name for p in HERE.glob("*/changes.txt")])
    parser.add_argument("what", choices=("run", "report"))
    parser.add_argument("--outputs", type=Path, help="default: outputs/<experiment>")
    args = parser.parse_args()
    if args.what == "run":
        run(args.experiment, args.outputs or Path("outputs") / args.experiment)
    else:
        report(args.experiment)


if __name__ == "__main__":
    main()
