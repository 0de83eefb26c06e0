"""The table a run ends with."""

from __future__ import annotations

from rich.table import Table

from mln_lightning.data import NoisyLabelDataModule
from mln_lightning.results import RunResults


def data_lines(data: NoisyLabelDataModule) -> list[str]:
    """What a run learns from, one line for each part.

    Args:
        data: set up.
    """
    rate = data.noise_rate
    wrong = "true classes unknown" if rate is None else f"{100 * rate:.1f} % wrong"
    parts = [("training", len(data.train_index), f"observed labels, {wrong}")]
    if len(data.val_index):
        parts.append(("validation", len(data.val_index), "observed labels"))
    parts += [
        ("meta", len(data.meta_index), "trusted labels"),
        ("test", len(data.parts.test.labels), "clean labels"),
    ]
    return [f"{name:<10} {size:>9,} images, {labels}" for name, size, labels in parts]


def summary_rows(results: RunResults) -> list[tuple[str, str]]:
    """Quantity and value, as shown at the end of a run; unknown values are left out."""
    metrics, noise, labels = results["metrics"], results["noise"], results["labels"]
    epochs = results["epochs"]
    rows = [("test accuracy, last epoch", _percent(metrics["test/accuracy_last"]))]
    if "test/accuracy_selected" in metrics:
        chosen = f"test accuracy, selected epoch ({epochs['selected']} of {epochs['last']})"
        rows.append((chosen, _percent(metrics["test/accuracy_selected"])))
    if noise["rate_asked"] is not None:
        rows.append(("noise rate asked for", _percent(noise["rate_asked"])))
    if noise["rate_measured"] is not None:
        rows.append(("noise rate measured, all classes", _percent(noise["rate_measured"])))
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


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2f} %"
