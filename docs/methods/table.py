"""The table of methods from the heads of the pages beside this file: python docs/methods/table.py

Prints it, and writes it between the marks of README.md here and at the root of the repository.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from mln_lightning.catalog import GROUPS, group

HERE = Path(__file__).parent
PLACES = {HERE.parents[1] / "README.md": "docs/methods/", HERE / "README.md": ""}
BEGIN, END = "<!-- methods -->\n", "<!-- /methods -->\n"
ROWS = ("paper", "idea", "needs", "cost", "reproduced")
SECTIONS = ("The step", "Options", "Differences")
LONGEST_IDEA = 90

_TITLE = re.compile(r"# (?P<name>.+) \(`model=(?P<model>\w+)`\)")
_NAMED = re.compile(r"(?:[-*] |\| )((?:\**`[^`]+`\**(?:, | and | / )?)+)")


class Page(NamedTuple):
    """The head of a page, and its section of options.

    `options` are those that a bullet or a row of a table is about, `mentioned` all words in code.
    """

    model: str
    name: str
    paper: str
    idea: str
    needs: str
    cost: str
    reproduced: str
    options: tuple[str, ...]
    mentioned: tuple[str, ...]

    @property
    def each_need(self) -> tuple[str, ...]:
        return tuple(need.strip() for need in self.needs.split(","))


def read_page(path: Path) -> Page:
    """
    Raises:
        ValueError: the page is not built as all are; names the file and the line.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    title = _TITLE.fullmatch(lines[0]) if lines else None
    if title is None or title["model"] != path.stem:
        raise ValueError(f"{path.name} must begin with '# <Name> (`model={path.stem}`)'.")
    expected = ["", "| | |", "| --- | --- |"]
    if lines[1:4] != expected:
        raise ValueError(f"{path.name}: after the title comes {expected}, not {lines[1:4]}.")
    cells = {}
    for name, line in zip(ROWS, lines[4:], strict=False):
        row = re.fullmatch(rf"\| {name} \| (.+) \|", line)
        if row is None:
            raise ValueError(f"{path.name}: expected '| {name} | … |', got {line!r}.")
        cells[name] = row[1]
    if len(cells) < len(ROWS) or (lines[9:10] or [""]) != [""]:
        raise ValueError(f"{path.name}: its head has exactly the rows {', '.join(ROWS)}.")
    idea = cells["idea"]
    if len(idea) > LONGEST_IDEA or idea.endswith("."):
        raise ValueError(
            f"{path.name}: the idea has at most {LONGEST_IDEA} characters and no full stop, got "
            f"{len(idea)}: {idea}"
        )
    sections = [line.removeprefix("## ") for line in lines if line.startswith("## ")]
    if [section for section in sections if section in SECTIONS] != list(SECTIONS):
        raise ValueError(f"{path.name}: needs the sections {', '.join(SECTIONS)}, got {sections}.")
    start = lines.index("## Options") + 1
    section = list(takewhile(lambda line: not line.startswith("## "), lines[start:]))
    entries = [found[1] for line in section if (found := _NAMED.match(line))]
    return Page(
        path.stem,
        title["name"],
        **cells,
        options=tuple(_in_code("\n".join(entries))),
        mentioned=tuple(_in_code("\n".join(section))),
    )


def _in_code(text: str) -> Iterator[str]:
    """Keys between backticks, `model.` before them and values after them left out."""
    for span in re.findall(r"`([^`\n]+)`", text):
        yield re.split("[=:]", span)[0].strip().removeprefix("model.")


def read_pages(folder: Path = HERE) -> list[Page]:
    """All pages, in the order in which `python -m mln_lightning.methods` lists them."""
    found = [read_page(path) for path in folder.glob("*.md") if path.name != "README.md"]
    return sorted(found, key=lambda page: (GROUPS.index(group(page.each_need)), page.model))


def table(pages: Sequence[Page], folder: str) -> str:
    """Markdown, a row per page; papers only beside the pages.

    Args:
        pages: in order.
        folder: where the pages lie, seen from the file that shows the table; "" or with a slash.
    """
    header = ["method", "idea", "needs", "cost", *([] if folder else ["paper"])]
    rows = [header, ["---"] * len(header)]
    for page in pages:
        name = f"[{page.name}]({folder}{page.model}.md) `{page.model}`"
        rows.append([name, page.idea, page.needs, page.cost, *([] if folder else [page.paper])])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def filled(text: str, content: str) -> str:
    """``text`` with ``content`` between its marks.

    Raises:
        ValueError: the marks are not there once each, in order.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"the text must have {BEGIN.strip()} and {END.strip()} once each.")
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n{content}\n{END}{rest.partition(END)[2]}"


def main() -> None:
    pages = read_pages()
    for path, folder in PLACES.items():
        path.write_text(filled(path.read_text(encoding="utf-8"), table(pages, folder)), "utf-8")
    print(table(pages, ""), end="")


if __name__ == "__main__":
    main()
