"""The same small tuning budget for every method, on validation labels that are noisy themselves.

python experiments/methods_tuning/tune.py run [model …]     train; continues where it was stopped
python experiments/methods_tuning/tune.py choose            results.csv, README table, conf/tuned

Every method has four settings, the first being its own defaults: the product of two choices in
grids.yaml. Each is trained on two kinds of noise: eight trials. The setting with the best mean
accuracy on the validation set after the last epoch is written to conf/tuned; among equals the
first. The test set is used for nothing.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean
from typing import Any

import yaml
from omegaconf import OmegaConf

HERE = Path(__file__).parent
TUNED = HERE.parents[1] / "conf" / "tuned"
SCORE = "val/accuracy"

Setting = tuple[str, ...]
"""Overrides of a method, sorted; none = its defaults."""


def grids() -> dict[str, dict[str, list[str]]]:
    """Key → two values, by method; the first value is the default."""
    found: dict[str, dict[str, list[str]]] = yaml.safe_load((HERE / "grids.yaml").read_text())
    return found


def settings(grid: dict[str, list[str]]) -> list[Setting]:
    """All combinations, the defaults first."""
    choices = [[f"{key}={value}" for value in values] for key, values in grid.items()]
    return [tuple(sorted(combination)) for combination in itertools.product(*choices)]


def run(models: list[str], outputs: Path) -> None:
    known = grids()
    for model in models or known:
        overrides = [f"{key}={','.join(map(str, values))}" for key, values in known[model].items()]
        command = [sys.executable, "-m", "mln_lightning.run", "experiment=methods_tuning"]
        command += [f"model={model}", f"hydra.sweep.dir={outputs}", *overrides]
        print(" ".join(command[1:]), flush=True)
        subprocess.run(command, check=False)


def scores(rows: list[dict[str, str]]) -> dict[str, dict[Setting, dict[str, float]]]:
    """Validation accuracy by method, setting and noise."""
    found: dict[str, dict[Setting, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        changed = tuple(o for o in row["other"].split(" ") if not o.startswith("experiment="))
        found[row["model"]][tuple(sorted(changed))][row["noise"]] = float(row[SCORE])
    return found


def best(found: dict[Setting, dict[str, float]], order: list[Setting]) -> Setting:
    """The setting with the best mean over the kinds of noise; the first of equals."""
    noises = {noise for setting in found.values() for noise in setting}
    whole = [setting for setting in order if found.get(setting, {}).keys() == noises]
    return max(whole, key=lambda setting: mean(found[setting].values()))


def shown(setting: Setting) -> str:
    return " ".join(f"`{change.removeprefix('model.')}`" for change in setting)


def table(rows: list[dict[str, str]]) -> str:
    """Markdown: every method's settings with their mean validation accuracy, the chosen in bold."""
    found = scores(rows)
    lines = ["| method | settings, validation accuracy in percent |", "| --- | --- |"]
    for model, grid in grids().items():
        if model not in found:
            continue
        chosen = best(found[model], settings(grid))
        cells = []
        for setting in settings(grid):
            value = f"{100 * mean(found[model][setting].values()):.1f}"
            cells.append(f"{shown(setting)} {f'**{value}**' if setting == chosen else value}")
        lines.append(f"| `{model}` | {'; '.join(cells)} |")
    return "\n".join(lines) + "\n"


def write_tuned(model: str, setting: Setting) -> None:
    """conf/tuned/methods_<model>.yaml, or nothing where the defaults are chosen."""
    path = TUNED / f"methods_{model}.yaml"
    path.unlink(missing_ok=True)
    default = settings(grids()[model])[0]
    changed = [change for change in setting if change not in default]
    if changed:
        values: Any = OmegaConf.to_container(OmegaConf.from_dotlist(changed))
        text = yaml.safe_dump(values, sort_keys=False)
        head = "# @package _global_\n# Chosen on validation labels: experiments/methods_tuning.\n"
        path.write_text(head + text)


def choose() -> None:
    with (HERE / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    TUNED.mkdir(exist_ok=True)
    for model, found in scores(rows).items():
        write_tuned(model, best(found, settings(grids()[model])))
    page = HERE / "README.md"
    head, mark, rest = page.read_text().partition("<!-- table -->\n")
    _, end, tail = rest.partition("<!-- /table -->")
    page.write_text(f"{head}{mark}{table(rows)}{end}{tail}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=("run", "choose"))
    parser.add_argument("models", nargs="*", help="default: all in grids.yaml")
    parser.add_argument("--outputs", type=Path, default=Path("outputs/methods_tuning"))
    args = parser.parse_args()
    if args.what == "run":
        run(args.models, args.outputs)
    else:
        choose()


if __name__ == "__main__":
    main()
