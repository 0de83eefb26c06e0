"""What docstrings say of arguments, read from source files: nothing is imported."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import zip_longest
from pathlib import Path

_ENTRY = re.compile(r"(\w+)(?: \([^)]*\))?:\s*(.*)")
_SEE = re.compile(r"see `(\w+)`([.;,]?)\s*(.*)")


@dataclass(frozen=True)
class Definition:
    """A class, a function or a described type in a source file.

    Attributes:
        node: its syntax tree.
        path: the file.
        doc: its docstring; for a type the string below it.
    """

    node: ast.stmt
    path: Path
    doc: str


def definition(dotted: str) -> Definition | None:
    """Where a dotted name is defined, re-exports followed; None if that cannot be found.

    Args:
        dotted: such as ``mln_lightning.models.MetaLabelNet``.
    """
    top, *names = dotted.split(".")
    spec = find_spec(top) if top else None  # looks for it; a dotted name would import its parents
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    path = Path(spec.origin)
    while len(names) > 1:
        inner = _module(path, names.pop(0))
        if inner is None:
            return None
        path = inner
    return _defined(path, names[0]) if names else None


def meaning(found: Definition, argument: str) -> str:
    """What a docstring's `Args` say of an argument; "" if nothing.

    "see `Other`" is followed to that class, function or type, and what is not described to the
    classes built upon.
    """
    if isinstance(found.node, ast.Assign):
        return " ".join(found.doc.split())
    text = _arguments(found.doc).get(argument, "")
    reference = _SEE.fullmatch(text)
    if text and reference is None:
        return text
    other = _defined(found.path, reference[1]) if reference else None  # else one built upon
    places = _bases(found) if other is None else [other]
    inherited = next(filter(None, (meaning(place, argument) for place in places)), "")
    if reference is None or not reference[3]:
        return inherited
    return f"{inherited.rstrip('.')}{reference[2]} {reference[3]}" if inherited else reference[3]


def _module(path: Path, name: str) -> Path | None:
    """A module inside a package, given as the package's `__init__.py`."""
    if path.name != "__init__.py":
        return None
    found = (path.parent / name / "__init__.py", path.parent / f"{name}.py")
    return next((file for file in found if file.is_file()), None)


def _defined(path: Path, name: str) -> Definition | None:
    body = _tree(path).body
    for node, below in zip_longest(body, body[1:]):
        match node:
            case ast.ClassDef() | ast.FunctionDef() if node.name == name:
                return Definition(node, path, ast.get_docstring(node) or "")
            case ast.Assign(targets=[ast.Name(id=target)]) if target == name:
                text = below.value if isinstance(below, ast.Expr) else None
                doc = text.value if isinstance(text, ast.Constant) else ""
                return Definition(node, path, str(doc))
            case ast.ImportFrom(module=str(module), level=0):
                for alias in node.names:
                    if (alias.asname or alias.name) == name:
                        return definition(f"{module}.{alias.name}")
    return None


def _bases(found: Definition) -> Iterator[Definition]:
    if isinstance(found.node, ast.ClassDef):
        for base in found.node.bases:
            if isinstance(base, ast.Name) and (other := _defined(found.path, base.id)):
                yield other


@functools.cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _arguments(doc: str) -> dict[str, str]:
    """The `Args` section of a docstring: argument → text on one line."""
    entries: dict[str, str] = {}
    inside, name = False, ""
    for line in doc.splitlines():
        if not line.startswith(" ") and line:
            inside = line == "Args:"
        elif inside and line.strip():
            entry = _ENTRY.fullmatch(line.strip()) if _indent(line) == 4 else None
            if entry:
                name = entry[1]
                entries[name] = entry[2]
            elif name:
                entries[name] += " " + line.strip()
    return entries


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())
