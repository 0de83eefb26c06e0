"""MetaLabelNet with one setting changed at a time.

python experiments/defaults/vary.py run       train; continues where it was stopped
python experiments/defaults/vary.py report    the table of README.md from results.csv
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

CHANGES: tuple[tuple[str, ...], ...] = (
    (),
    ("model.entropy_weight=0",),
    ("model.entropy_weight=0.5",),
    ("model.reduction=element",),
    ("model.virtual_lr=0.1",),
    ("model.virtual_lr=0.3",),
    ("model.virtual_lr=3",),
    ("model.warmup_epochs=4",),
    ("model.warmup_epochs=12",),
    ("model.meta_buffers=share",),
    ("model.generator_start=random",),
    ("model.meta_weight=0",),
)

Row = dict[str, str]


def run(outputs: Path) -> None:
    for change in CHANGES:
        command = [sys.executable, "-m", "mln_lightning.run", "experiment=defaults"]
        command += [f"hydra.sweep.dir={outputs}", *change]
        print(" ".join(command[1:]), flush=True)
        subprocess.run(command, check=False)


def of(rows: list[Row], change: tuple[str, ...], noise: str) -> list[Row]:
    wanted = {"experiment=defaults", *change}
    return [row for row in rows if row["noise"] == noise and set(row["other"].split()) == wanted]


def shown(values: list[float]) -> str:
    if not values:
        return "–"
    text = f"{100 * mean(values):.1f}"
    return f"{text} ± {100 * stdev(values):.1f}" if len(values) > 1 else text


def table(rows: list[Row]) -> str:
    """Markdown: a line per change; the validation labels are as noisy as the training labels."""
    names = ("val.", "test", "labels right")
    header = ["changed", *(f"{noise}: {name}" for noise in NOISES for name in names)]
    lines = ["| " + " | ".join(header) + " |", "| --- " + "| ---: " * (len(header) - 1) + "|"]
    for change in CHANGES:
        cells = [
            shown([float(row[metric]) for row in of(rows, change, noise)])
            for noise in NOISES
            for metric in METRICS
        ]
        name = " ".join(f"`{c.removeprefix('model.')}`" for c in change) or "nothing"
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def report() -> None:
    with (HERE / "results.csv").open(newline="") as file:
        text = table(list(csv.DictReader(file)))
    page = HERE / "README.md"
    head, mark, rest = page.read_text().partition("<!-- table -->\n")
    _, end, tail = rest.partition("<!-- /table -->")
    page.write_text(f"{head}{mark}\n{text}\n{end}{tail}")
    print(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=("run", "report"))
    parser.add_argument("--outputs", type=Path, default=Path("outputs/defaults"))
    args = parser.parse_args()
    if args.what == "run":
        run(args.outputs)
    else:
        report()


if __name__ == "__main__":
    main()
