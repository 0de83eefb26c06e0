"""The command line: `python -m mln_lightning.methods [name]`, the learning methods or one of them.

Reads the files in `conf/model`, also those of `--config-dir`. Exit codes: 0 done; 2 the request was
wrong.
"""

from __future__ import annotations

import shlex
import sys
from argparse import ArgumentParser
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from mln_lightning.catalog import META_SET, NOTHING, Method, method, methods
from mln_lightning.docstrings import definition, meaning
from mln_lightning.errors import UserError
from mln_lightning.files import shown

WIDTH = 100
_PAGES = Path(__file__).parents[2] / "docs" / "methods"  # of a checkout; a wheel has none
_MARKS = ("_target_", "_partial_")


def main() -> None:
    """Entry point; reads `sys.argv` and exits with a code other than 0 if the request was wrong."""
    parser = ArgumentParser(
        prog="python -m mln_lightning.methods",
        description="List the learning methods, or tell what is known of one.",
    )
    parser.add_argument("name", nargs="?", help="of a method, such as metalabelnet")
    parser.add_argument("--config-dir", type=Path, help="folder of further config files")
    arguments = parser.parse_args()
    console = Console(highlight=False)
    console.width = min(console.width, WIDTH)
    try:
        if arguments.name is None:
            screen = overview(methods(arguments.config_dir))
        else:
            screen = page(method(arguments.name, arguments.config_dir), arguments.config_dir)
    except UserError as error:
        _exit(str(error), 2)
    for part in screen:
        console.print(part)


def overview(found: list[Method]) -> Iterator[RenderableType]:
    """A heading for each group, and a sentence and the options of each of its methods.

    Args:
        found: by group.
    """
    width = max(len(one.name) for one in found)
    for heading, group in groupby(found, key=lambda one: one.group):
        yield Text(f"Needs: {heading}", style="bold")
        grid = Table.grid(padding=(0, 2))
        grid.add_column(min_width=width, no_wrap=True)
        grid.add_column()
        for one in group:
            grid.add_row(one.name, Text(one.sentence))
            needs = [need for need in one.needs if need not in (NOTHING, META_SET)]
            own = [f"needs {', '.join(needs)};"] if needs else []
            if one.options != one.changes:  # the rest is the other method's
                own.append(f"options as {one.base}{', but' if one.changes else ''}")
            own += [f"{key}={value}" for key, value in _pairs("", one.changes)]
            if own:
                grid.add_row("", Text("  ".join(own), style="dim"))
        yield grid
        yield Text()
    yield Text(f"{len(found)} methods; more on one: python -m mln_lightning.methods <name>")


def page(one: Method, config_dir: Path | None = None) -> Iterator[RenderableType]:
    """All that is known of a method.

    Args:
        one: the method.
        config_dir: from where it was read, for the command that runs it.
    """
    yield Text(one.name, style="bold")
    yield Text(f"{one.header}\n")
    for key, value, text in described(one):
        yield Text(f"{key}={value}")
        if text:
            yield Padding(Text(text, style="dim"), (0, 0, 0, 4))
    yield Text()
    folder = [] if config_dir is None else ["--config-dir", str(config_dir)]
    command = ["python", "-m", "mln_lightning.run", *folder, f"model={one.name}"]
    facts = {
        "needs": ", ".join(one.needs),
        "run": shlex.join(command),
        "class": one.target,
        "file": shown(one.path),
        "page": shown(path) if (path := _PAGES / f"{one.name}.md").is_file() else "",
    }
    grid = Table.grid(padding=(0, 2))
    grid.add_column()
    grid.add_column(overflow="fold")
    for name, fact in facts.items():
        if fact:
            grid.add_row(name, Text(fact))
    yield grid


def described(one: Method) -> Iterator[tuple[str, str, str]]:
    """Key of the command line, value and meaning of each option of a method."""
    yield from _described("model", {"_target_": one.target, **one.options})


def _described(prefix: str, options: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """The same below a key; a node with a `_target_` of its own is described by that."""
    owner = definition(str(options.get("_target_", "")))
    for name, value in _leaves(options):
        key, text = f"{prefix}.{name}", "" if owner is None else meaning(owner, name)
        text = text.replace("``", "")
        if not isinstance(value, Mapping):
            yield key, _brief(value), text
            continue
        if target := value.get("_target_"):
            yield f"{key}._target_", str(target), text
        yield from _described(key, value)


def _leaves(options: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    return ((name, value) for name, value in options.items() if name not in _MARKS)


def _pairs(prefix: str, options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Key and value of each option; a node that only changes another's is taken apart."""
    for name, value in _leaves(options):
        if isinstance(value, Mapping) and "_target_" not in value:
            yield from _pairs(f"{prefix}{name}.", value)
        else:
            yield f"{prefix}{name}", _brief(value)


def _brief(value: Any) -> str:
    """A value as in YAML, a node as a call of its target."""
    if isinstance(value, Mapping):
        inner = (f"{name}={_brief(v)}" for name, v in _leaves(value))
        return f"{str(value.get('_target_', '')).rpartition('.')[2]}({', '.join(inner)})"
    if isinstance(value, list):
        return f"[{', '.join(map(_brief, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def _exit(text: str, code: int) -> NoReturn:
    print(text, file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
