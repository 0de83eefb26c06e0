"""Rules of the source tree that a reader relies on, checked over every file."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "mln_lightning"
CONF = ROOT / "conf"
SOURCES = sorted(PACKAGE.rglob("*.py"))


def parts_of(path: Path) -> tuple[str, ...]:
    """A source file as parts below the package, such as ("meta", "step")."""
    return path.relative_to(PACKAGE).with_suffix("").parts


def imported(path: Path) -> Iterator[str]:
    """Modules a file imports, wherever in it; names under TYPE_CHECKING count too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            assert node.module is not None
            yield node.module


def closure(module: str, seen: set[str]) -> set[str]:
    """All modules that importing ``module`` pulls in, our own followed to their imports."""
    if module in seen:
        return seen
    seen.add(module)
    if module.split(".")[0] == "mln_lightning":
        stem = PACKAGE.joinpath(*module.split(".")[1:])
        path = stem / "__init__.py" if stem.is_dir() else stem.with_suffix(".py")
        parents = [".".join(module.split(".")[:n]) for n in range(1, module.count(".") + 1)]
        for name in (*imported(path), *(parents if module != "mln_lightning" else [])):
            if name != "mln_lightning":  # light; its imports of submodules are lazy
                closure(name, seen)
    return seen


_MATHS = (
    *("meta", "losses", "labels", "noise", "metrics", "networks"),
    *("confident", "correctors", "mixmatch", "neighbours", "ridge", "selection", "weights"),
)
PURE = [
    ".".join(("mln_lightning", *parts_of(path))).removesuffix(".__init__")
    for path in SOURCES
    if parts_of(path)[0] in _MATHS
]


@pytest.mark.parametrize("module", PURE)
def test_mathematics_needs_no_framework(module: str) -> None:
    tops = {name.split(".")[0] for name in closure(module, set())}
    assert "torch" in tops or module.endswith(("noise", "meta", "missing"))
    assert not tops & {"lightning", "hydra", "omegaconf", "wandb", "rich"}


def test_the_closure_finds_what_is_there() -> None:
    assert {"meta", "noise", "metrics", "networks"} <= {name.split(".")[1] for name in PURE}
    assert "lightning" in {n.split(".")[0] for n in closure("mln_lightning.job", set())}


def test_only_those_who_measure_read_the_truth() -> None:
    """`batch.clean` and `data.clean` are for metrics and reports, never for learning."""
    readers = {
        parts_of(path)
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr == "clean"
    }
    allowed = {("export",), ("noise", "record"), ("noise", "recorded")}
    others = {p for p in readers - allowed if p[0] not in ("data", "metrics", "callbacks")}
    assert others == set()
    assert ("export",) in readers
    assert ("callbacks", "label_quality") in readers


FOLDERS = {  # group -> where its targets live
    "dataset": ("data", "datasets"),
    "noise": ("noise",),
    "model": ("models", "losses"),
    "model/network": ("networks",),
    "callbacks": ("callbacks",),
}


def targets() -> list[tuple[str, str]]:
    """(group, target of our own) of every configuration file."""
    return [
        (path.parent.relative_to(CONF).as_posix(), target)
        for path in sorted(CONF.rglob("*.yaml"))
        for target in re.findall(r"_target_:\s*(mln_lightning\.\S+)", path.read_text())
    ]


def test_a_target_lives_in_the_folder_of_its_group() -> None:
    found = targets()
    assert {group for group, _ in found} >= set(FOLDERS)
    assert [
        (group, target)
        for group, target in found
        if group in FOLDERS and target.split(".")[1] not in FOLDERS[group]
    ] == []


def test_experiments_and_their_configurations_have_the_same_names() -> None:
    folders = {path.parent.name for path in (ROOT / "experiments").glob("*/README.md")}
    files = {path.stem for path in (CONF / "experiment").glob("*.yaml")}
    assert folders == files


def test_no_source_file_is_long() -> None:
    lengths = {parts_of(path): len(path.read_text().splitlines()) for path in SOURCES}
    assert {name: length for name, length in lengths.items() if length > 300} == {}
