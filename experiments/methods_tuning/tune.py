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
from typing import cast

from omegaconf import OmegaConf

from mln_lightning.config import compose

HERE = Path(__file__).parent
TUNED = HERE.parents[1] / "conf" / "tuned"
SCORE = "val/accuracy"

Setting = tuple[str, ...]
"""Overrides of a method, sorted; none = its defaults."""


def grids() -> dict[str, dict[str, list[str]]]:
    """Key → two values, by method; the first value is the default."""
    loaded = OmegaConf.to_container(OmegaConf.load(HERE / "grids.yaml"))
    return cast(dict[str, dict[str, list[str]]], loaded)


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


def tuned_text(model: str, setting: Setting) -> str:
    """The content of conf/tuned/methods_<model>.yaml; "" where a method keeps its defaults."""
    own = compose([f"model={model}"]).model
    values = OmegaConf.from_dotlist(list(setting))
    changed = [
        change
        for change in setting
        if OmegaConf.select(values, key := change.partition("=")[0])
        != OmegaConf.select(own, key.removeprefix("model."))
    ]
    if not changed:
        return ""
    head = "# @package _global_\n# Chosen on validation labels: experiments/methods_tuning.\n"
    return head + OmegaConf.to_yaml(OmegaConf.from_dotlist(changed))


def read() -> list[dict[str, str]]:
    with (HERE / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def choose() -> None:
    rows = read()
    TUNED.mkdir(exist_ok=True)
    for model, found in scores(rows).items():
        path = TUNED / f"methods_{model}.yaml"
        text = tuned_text(model, best(found, settings(grids()[model])))
        if text:
            path.write_text(text)
        else:
            path.unlink(missing_ok=True)
    page = HERE / "README.md"
    head, mark, rest = page.read_text().partition("<!-- table -->\n")
    _, end, tail = rest.partition("<!-- /table -->")
    page.write_text(f"{head}{mark}\n{table(rows)}\n{end}{tail}")


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
