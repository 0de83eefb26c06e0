"""Every method has a page, and tables, pages and configs say the same."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from omegaconf import OmegaConf

from mln_lightning import catalog
from mln_lightning.config import conf_dir

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs" / "methods"
METHODS = sorted(path.stem for path in (conf_dir() / "model").glob("*.yaml"))
NODES = ("optimizer", "scheduler", "meta_optimizer")  # a page need not go through their keys

PAGE = """# Mine (`model=mine`)

| | |
| --- | --- |
| paper | Doe & Roe, ICML 2030, [arXiv 3001.00001](https://arxiv.org/abs/3001.00001) |
| idea | a batch a day |
| needs | two networks, noise rate |
| cost | `6F + 3F` |
| reproduced | not reproduced here |

## The step

- `not_an_option`: here

## Options

- `share`, `loss.power`: how much, 0…1, and how often; `other` is a word in the text.
- `model.warmup_epochs=3` is longer.

| key | meaning |
| --- | --- |
| `window` | a row |

## Differences

- `not_an_option`: there
"""


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("methods_table", PAGES / "table.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_method_has_a_page_and_every_page_a_method() -> None:
    assert sorted(path.stem for path in PAGES.glob("*.md") if path.stem != "README") == METHODS


@pytest.mark.parametrize("path", sorted(PAGES.glob("[!R]*.md")), ids=lambda path: path.stem)
def test_a_page_is_built_as_all_are_and_agrees_with_its_config(
    path: Path, script: ModuleType
) -> None:
    page = script.read_page(path)
    method = catalog.method(path.stem)
    assert len(path.read_text().splitlines()) <= 75
    assert page.each_need == method.needs, "the line '# Needs: …' of the config says the same"
    known = [*leaves(method.options), *shared_keys()]
    wrong = [name for name in page.options if not any(is_about(name, key) for key in known)]
    assert wrong == [], "no such option"
    own = method.changes if method.base else method.options
    to_tell = [key for key in leaves(own) if key.split(".")[0] not in (*NODES, "peer")]
    missing = [key for key in to_tell if not any(is_about(name, key) for name in page.mentioned)]
    assert missing == [], "options that the page does not tell of"


def leaves(options: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in options.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{name}.")
        elif name not in ("_target_", "_partial_"):
            yield f"{prefix}{name}"


def is_about(name: str, key: str) -> bool:
    """Whether a page's ``q`` or ``loss`` or ``loss.q`` is the key ``loss.q``."""
    return f".{key}".endswith(f".{name}") or key.startswith(f"{name}.")


def shared_keys() -> set[str]:
    folder = conf_dir() / "model" / "shared"
    files = [OmegaConf.to_container(OmegaConf.load(path)) for path in folder.glob("*.yaml")]
    return {key for file in files if isinstance(file, dict) for key in leaves(file)}


@pytest.mark.parametrize("place", ["README.md", "docs/methods/README.md"])
def test_tables_are_made_from_the_pages(place: str, script: ModuleType) -> None:
    folders = {path.relative_to(ROOT).as_posix(): link for path, link in script.PLACES.items()}
    text = (ROOT / place).read_text()
    expected = script.filled(text, script.table(script.read_pages(), folders[place]))
    assert text == expected, "run python docs/methods/table.py"


def test_what_a_page_says(script: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "mine.md").write_text(PAGE)
    (tmp_path / "alone.md").write_text(
        PAGE.replace("mine", "alone").replace("two networks, noise rate", "nothing")
    )
    (tmp_path / "README.md").write_text("no page of a method")
    alone, mine = script.read_pages(tmp_path)
    assert (alone.model, mine.model) == ("alone", "mine"), "grouped by needs"
    assert mine.name == "Mine"
    assert mine.each_need == ("two networks", "noise rate")
    assert mine.options == ("share", "loss.power", "warmup_epochs", "window")
    assert set(mine.mentioned) == {*mine.options, "other"}
    rows = script.table([mine], "docs/methods/").splitlines()
    assert rows[2:] == [
        "| [Mine](docs/methods/mine.md) `mine` | a batch a day | two networks, noise rate "
        "| `6F + 3F` |"
    ]
    rows = script.table([mine], "").splitlines()
    assert rows[2:] == [
        "| [Mine](mine.md) `mine` | a batch a day | two networks, noise rate "
        "| `6F + 3F` | Doe & Roe, ICML 2030, [arXiv 3001.00001](https://arxiv.org/abs/3001.00001) |"
    ]
    assert len({row.count("|") for row in rows}) == 1


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("`model=mine`", "`model=other`", "must begin with"),
        ("| | |", "| a | b |", "after the title"),
        ("| idea |", "| ideas |", "expected '| idea | … |'"),
        ("a batch a day", "a batch a day.", "no full stop"),
        ("a batch a day", "a day " * 20, "at most 90 characters"),
        (
            "| not reproduced here |\n",
            "| not reproduced here |\n| more | x |\n",
            "exactly the rows",
        ),
        ("## Differences", "## Difference", "needs the sections"),
        (PAGE, "", "must begin with"),
        (PAGE[PAGE.index("| needs") :], "", "exactly the rows"),
    ],
)
def test_a_page_that_is_built_otherwise_is_refused(
    old: str, new: str, words: str, script: ModuleType, tmp_path: Path
) -> None:
    (tmp_path / "mine.md").write_text(PAGE.replace(old, new))
    with pytest.raises(ValueError, match=r"mine\.md") as caught:
        script.read_page(tmp_path / "mine.md")
    assert words in str(caught.value)


def test_only_what_is_between_the_marks_is_replaced(script: ModuleType) -> None:
    text = f"a\n{script.BEGIN}old\n{script.END}b\n"
    assert script.filled(text, "new\n") == f"a\n{script.BEGIN}\nnew\n\n{script.END}b\n"
    for bad in ("a\n", script.END + script.BEGIN, text + text):
        with pytest.raises(ValueError, match="once each"):
            script.filled(bad, "new\n")


@pytest.mark.parametrize(
    ("name", "key", "same"),
    [
        ("q", "loss.q", True),
        ("loss.q", "loss.q", True),
        ("loss", "loss.q", True),
        ("q", "loss.eq", False),
        ("los", "loss.q", False),
        ("loss.q", "q", False),
    ],
)
def test_names_of_options(name: str, key: str, same: bool) -> None:
    assert is_about(name, key) is same
