"""Put the tables of kept measurements into the pages that show them.

    python -m benchmarks.pages [--keep outputs/bench/bench.json --as cpu]

A page says where: between ``<!-- bench cpu steps -->`` and ``<!-- end -->`` stands the table
``steps`` of ``benchmarks/results/cpu.json``; ``about`` in place of a table is its machine and date.
``--keep`` first makes a measurement one of those that are kept.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
from pathlib import Path
from typing import Any

from benchmarks.machine import sentence
from benchmarks.report import Table

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = (ROOT / "README.md", ROOT / "benchmarks" / "README.md")
_PLACE = re.compile(r"<!-- bench (\S+) (\S+) -->\n.*?<!-- end -->", re.DOTALL)


def filled(page: str, results: Path = RESULTS) -> str:
    """The page with the tables of the present measurements.

    Raises:
        KeyError: a place names a table that its measurement does not have.
        FileNotFoundError: a place names a measurement that is not kept.
    """

    def block(place: re.Match[str]) -> str:
        record, name = place.groups()
        found = json.loads((results / f"{record}.json").read_text())
        return f"<!-- bench {record} {name} -->\n{_shown(found, name)}<!-- end -->"

    return _PLACE.sub(block, page)


def _shown(found: dict[str, Any], name: str) -> str:
    if name == "about":
        return f"Measured on {sentence(found['about'])}.\n"
    return Table(**found["tables"][name]).markdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--keep", type=Path, help="a file that the benchmark wrote")
    parser.add_argument("--as", dest="name", default="cpu", help="name it is kept under")
    options = parser.parse_args()
    if options.keep:
        RESULTS.mkdir(exist_ok=True)
        shutil.copyfile(options.keep, RESULTS / f"{options.name}.json")
    for page in PAGES:
        page.write_text(filled(page.read_text()))


if __name__ == "__main__":
    main()
