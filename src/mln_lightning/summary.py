"""The table a run ends with."""

from __future__ import annotations

import re

from rich.table import Table

from mln_lightning.batch import UNKNOWN
from mln_lightning.data import NoisyLabelDataModule
from mln_lightning.results import RunResults

_TEST_KEY = re.compile(r"test(_(?P<name>.+))?/(?P<what>accuracy|human_kl)_(?P<when>last|selected)")


def data_lines(data: NoisyLabelDataModule) -> list[str]:
    """What a run learns from, one line for each part.

    Args:
        data: set up.
    """
    rate, parts = data.noise_rate, data.parts
    wrong = "true classes unknown" if rate is None else f"{100 * rate:.1f} % wrong"
    unlabelled = int((parts.train.labels == UNKNOWN).sum())
    sets = [("training", len(parts.train) - unlabelled, f"observed labels, {wrong}")]
    if unlabelled:
        sets.append(("", unlabelled, "without a label"))
    if len(parts.val):
        sets.append(("validation", len(parts.val), "observed labels"))
    sets.append(("meta", len(parts.meta), "trusted labels"))
    if parts.test is not None:
        sets.append(("test", len(parts.test), "clean labels"))
    sets += [(name, len(part), "clean labels") for name, part in data.also_test.items()]
    lines = [f"{name:<10} {size:>9,} images, {labels}" for name, size, labels in sets]
    return lines + data.notes


def summary_rows(results: RunResults) -> list[tuple[str, str]]:
    """Quantity and value, as shown at the end of a run; unknown values are left out."""
    metrics, noise, labels = results["metrics"], results["noise"], results["labels"]
    rows = _test_rows(results)
    if not rows and "val/accuracy" in metrics:
        rows.append(("validation accuracy, observed labels", _percent(metrics["val/accuracy"])))
    if noise["rate_asked"] is not None:
        rows.append(("noise rate asked for", _percent(noise["rate_asked"])))
    if noise["rate_measured"] is not None:
        rows.append(("noise rate measured, all classes", _percent(noise["rate_measured"])))
    rows.append(("training labels changed (labels.csv)", f"{labels['changed']:,}"))
    if labels["accuracy_before"] is not None and labels["accuracy_after"] is not None:
        rows += [
            ("training labels right before", _percent(labels["accuracy_before"])),
            ("training labels right after correction", _percent(labels["accuracy_after"])),
            ("wrong labels recovered", str(labels["recovered"])),
            ("right labels damaged", str(labels["damaged"])),
        ]
    rows.append(("seconds", f"{results['seconds']['total']:.0f}"))
    return rows


def summary_table(results: RunResults) -> Table:
    """`summary_rows` as a table of at most 80 columns."""
    table = Table(show_header=False)
    table.add_column(max_width=52)
    table.add_column(justify="right")
    for quantity, value in summary_rows(results):
        table.add_row(quantity, value)
    return table


def _test_rows(results: RunResults) -> list[tuple[str, str]]:
    epochs = results["epochs"]
    selected = f"selected epoch ({epochs['selected']} of {epochs['last']})"
    rows = []
    for key, value in results["metrics"].items():
        if (found := _TEST_KEY.fullmatch(key)) is None:
            continue
        epoch = "last epoch" if found["when"] == "last" else selected
        if found["what"] == "accuracy":
            rows.append((f"{found['name'] or 'test'} accuracy, {epoch}", _percent(value)))
        else:
            rows.append((f"KL from people's labels, {epoch}", f"{value:.3f} nats"))
    return rows


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2f} %"
