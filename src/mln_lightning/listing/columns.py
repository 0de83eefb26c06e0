"""Tables with named columns: CSV and Parquet."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mln_lightning.listing.classes import nearest, shown
from mln_lightning.listing.tree import require_file

_DELIMITERS = ",;\t"  # spreadsheets write semicolons where the comma is the decimal point
_NEAR = 0.8
# pandas writes whole numbers like this if some are missing.
_WHOLE = re.compile(r"(-?[0-9]+)\.0+")


@dataclass(frozen=True, eq=False)
class Columns:
    """Some columns of a table, all cells as text without blanks around it, "" = empty.

    Attributes:
        path: the file.
        cells: column → cells.
        numbers: for each row its line in a text file, or its number from 1.
        unit: what the numbers count.
    """

    path: Path
    cells: Mapping[str, list[str]]
    numbers: Sequence[int]
    unit: Literal["line", "row"]

    def __len__(self) -> int:
        return len(self.numbers)

    def __contains__(self, name: str) -> bool:
        return name in self.cells

    def __getitem__(self, name: str) -> list[str]:
        """The cells of a column; empty ones if the table does not have it."""
        return self.cells[name] if name in self.cells else [""] * len(self)

    def where(self, row: int) -> str:
        """``labels.csv, line 7``."""
        return f"{self.path}, {self.short(row)}"

    def short(self, row: int) -> str:
        """``line 7``."""
        return f"{self.unit} {self.numbers[row]}"


def read_columns(
    path: str | os.PathLike[str], *, key: str, required: Sequence[str], optional: Sequence[str]
) -> Columns:
    """Read a table whose first line names its columns.

    Parquet if the file's name ends so, else text in UTF-8, separated by commas, semicolons or tabs.
    Further columns are allowed, unless their name is nearly one of those that are known.

    Args:
        path: the file.
        key: what the path was given as, such as ``dataset.source.table``.
        required: columns that there must be.
        optional: columns that there may be.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read as a table, has no rows, or a column is missing.
        OSError: it cannot be read at all.
    """
    file = require_file(path, key)
    in_parquet = file.suffix.lower() in (".parquet", ".pq")
    known = [*required, *optional]
    names, rows, numbers = _parquet(file, known) if in_parquet else _text(file)
    _check_names(file, names, required, optional)
    if not numbers:
        raise ValueError(f"{file} names its columns and has no row below; list the images there.")
    places = {name: names.index(name) for name in known if name in names}
    cells = {name: [_plain(row[place]) for row in rows] for name, place in places.items()}
    return Columns(file, cells, numbers, "row" if in_parquet else "line")


_Read = tuple[list[str], Sequence[Sequence[object]], Sequence[int]]


def _text(file: Path) -> _Read:
    """Column names, rows, and the line that each row ends in."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            header = stream.readline()
            stream.seek(0)
            reader = csv.reader(stream, delimiter=max(_DELIMITERS, key=header.count), strict=True)
            names = [name.strip() for name in next(reader, [])]
            rows, numbers = [], []
            for row in reader:
                if not any(row):
                    continue
                if len(row) != len(names):
                    raise ValueError(
                        f"{file}, line {reader.line_num}: {len(row)} cells, the first line names "
                        f"{len(names)} columns ({shown(names)})."
                    )
                rows.append(row)
                numbers.append(reader.line_num)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{file} is no text in UTF-8 ({error.reason} at byte {error.start}); save it as CSV in "
            "UTF-8."
        ) from error
    except csv.Error as error:
        raise ValueError(f"{file}, line {reader.line_num}: it cannot be read ({error}).") from error
    if not names:
        raise ValueError(f"{file} is empty; its first line should name the columns.")
    return names, rows, numbers


def _parquet(file: Path, wanted: Sequence[str]) -> _Read:
    """All column names, but the cells of the wanted columns only: others may be large."""
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise ValueError(
            f"Reading {file} needs pyarrow: pip install 'mln-lightning[parquet]', or save the "
            "table as CSV."
        ) from error
    try:
        names = [str(name) for name in parquet.read_schema(file).names]
        columns = [name for name in names if name in wanted]
        # The other columns stand last, so that the names fit the cells.
        names = columns + [name for name in names if name not in wanted]
        table = parquet.ParquetFile(file).read(columns=columns)
        cells = [table.column(name).to_pylist() for name in columns]
    except (ArrowException, ValueError) as error:
        raise ValueError(f"{file} cannot be read as Parquet ({error}).") from error
    rows = list(zip(*cells, strict=True))
    return names, rows, range(1, len(rows) + 1)


def _check_names(
    file: Path, names: list[str], required: Sequence[str], optional: Sequence[str]
) -> None:
    for name in (*required, *optional):
        if names.count(name) > 1:
            raise ValueError(f"{file} has two columns {name!r}; remove or rename one.")
    for name in required:
        if name not in names:
            raise ValueError(
                f"{file} has no column {name!r}{nearest(name, names)}; its columns are "
                f"{shown(names)}."
            )
    missing = [name for name in optional if name not in names]
    for name in names:
        if name in required or name in optional:
            continue
        hint = nearest(name, missing, likeness=_NEAR)
        if hint:
            raise ValueError(f"{file} has a column {name!r}, which is not read{hint}; rename it.")


def _plain(value: object) -> str:
    """A cell as text; missing values are empty, whole numbers have no decimals."""
    if value is None or value != value:
        return ""
    text = str(value).strip()
    whole = _WHOLE.fullmatch(text)
    return whole[1] if whole else text
