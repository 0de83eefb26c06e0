"""What a part of the benchmark found, for the screen, a file and a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.table import Table as RichTable

from benchmarks.timing import Range


@dataclass(frozen=True)
class Goal:
    """A number and what it should be.

    Attributes:
        why: what is known of the reason, should it be missed; empty if nothing.
        value: None where this machine cannot say.
    """

    what: str
    value: float | None
    limit: float
    at_most: bool
    why: str = ""

    @property
    def met(self) -> bool | None:
        if self.value is None:
            return None
        return self.value <= self.limit if self.at_most else self.value >= self.limit

    def __str__(self) -> str:
        sign = "≤" if self.at_most else "≥"
        if self.value is None:
            return f"{self.what}: {sign} {self.limit:g} needs a GPU"
        verdict = "met" if self.met else "MISSED"
        reason = "" if self.met or not self.why else f"\n  why: {self.why}"
        return f"{self.what}: {self.value:.2f} ({sign} {self.limit:g}) {verdict}{reason}"


@dataclass(frozen=True)
class Table:
    """Cells as they are shown; the first column is text, the others are numbers.

    Attributes:
        note: a sentence that belongs below the table.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""

    def rich(self) -> RichTable:
        table = RichTable(
            title=self.title, title_justify="left", caption=self.note, caption_justify="left"
        )
        for number, column in enumerate(self.header):
            table.add_column(column, justify="right" if number else "left")
        for row in self.rows:
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        rule = ["---"] + ["---:"] * (len(self.header) - 1)
        lines = "".join(f"| {' | '.join(line)} |\n" for line in (self.header, rule, *self.rows))
        return lines + (f"\n{self.note}\n" if self.note else "")


@dataclass(frozen=True)
class Report:
    """One part's tables by a short name, its numbers for a file, and the goals they serve."""

    tables: Mapping[str, Table]
    numbers: Mapping[str, Any]
    goals: Sequence[Goal] = field(default_factory=list)


def spread(found: Range, digits: int = 2) -> str:
    """``1.23 (1.20-1.31)``: median, least and greatest."""
    return f"{found.median:.{digits}f} ({found.min:.{digits}f}-{found.max:.{digits}f})"


def seconds(found: Range) -> str:
    return f"{found.median:.3g} ({found.min:.3g}-{found.max:.3g})"
