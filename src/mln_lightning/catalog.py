"""What the files in `conf/model` say of the learning methods, read without composing or torch.

A file's header comment tells what the method is, in its first sentence on one line's worth of
words. Its last line, `# Needs: meta set, two networks`, tells what must be given besides images
with observed labels; `# Needs: nothing` if that is all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from mln_lightning.config import conf_dir
from mln_lightning.diagnosis import did_you_mean
from mln_lightning.errors import UserError

NOTHING = "nothing"
META_SET = "meta set"
_NO_KNOWLEDGE = frozenset({NOTHING, "two networks"})  # costs time, but nobody has to know anything
_SHARED = "shared/"  # what every method takes, and no method's own
_END = re.compile(r"(?<!\bal)(?<!\be\.g)(?<!\bi\.e)(?<!\bvs)\.(?=\n| +[^a-z ]|$)")
_NEEDS = re.compile(r"needs:\s*(.*?)\.?", flags=re.IGNORECASE)


@dataclass(frozen=True)
class Method:
    """A file in a `conf/model` folder.

    Attributes:
        name: what `model=<name>` says.
        path: the file.
        sentence: the first of its comment, without the full stop.
        header: the whole comment without the line of needs, a paragraph.
        needs: what must be given besides images with observed labels; empty if nothing is said.
        target: dotted name of its class.
        options: what it sets beyond `shared/`, those of the methods it builds on included; values
            as written, not resolved.
        base: the method whose file it builds on; "" if there is none.
        changes: those of the options that its own file sets.
    """

    name: str
    path: Path
    sentence: str
    header: str
    needs: tuple[str, ...]
    target: str
    options: Mapping[str, Any]
    base: str
    changes: Mapping[str, Any]

    @property
    def group(self) -> str:
        """The heading under which it is listed; one of `GROUPS`."""
        return group(self.needs)


GROUPS = (
    "observed labels alone",
    "something known of the noise",
    "a meta set of trusted labels",
    "not said (no line `# Needs: …` in the header)",
)
"""What methods need to be given, in the order of a list."""


def group(needs: Sequence[str]) -> str:
    """One of `GROUPS` for the needs of a method."""
    if not needs:
        return GROUPS[3]
    if META_SET in needs:
        return GROUPS[2]
    return GROUPS[0] if _NO_KNOWLEDGE.issuperset(needs) else GROUPS[1]


def methods(config_dir: Path | None = None) -> list[Method]:
    """All methods, by group and name.

    Args:
        config_dir: a folder of further config files (Hydra's `--config-dir`); its files go first.

    Raises:
        UserError: a file cannot be read, or builds on one that is not there.
    """
    folders = _folders(config_dir)
    names = {path.stem for folder in folders for path in folder.glob("*.yaml")}
    found = [_read(name, folders) for name in names]
    return sorted(found, key=lambda method: (GROUPS.index(method.group), method.name))


def method(name: str, config_dir: Path | None = None) -> Method:
    """One method.

    Args:
        name: as in `model=<name>`.
        config_dir: see `methods`.

    Raises:
        UserError: there is none of this name, with the nearest; or see `methods`.
    """
    folders = _folders(config_dir)
    known = sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})
    if name not in known:
        raise UserError(
            f"unknown method {name!r}{did_you_mean(name, known)} methods: {', '.join(known)}"
        )
    return _read(name, folders)


def _folders(config_dir: Path | None) -> list[Path]:
    if config_dir is not None and not config_dir.is_dir():
        raise UserError(f"--config-dir {config_dir} is not a folder")
    given = [] if config_dir is None else [config_dir]
    return [folder / "model" for folder in (*given, conf_dir())]


def _read(name: str, folders: Sequence[Path]) -> Method:
    path = _file(name, folders)
    comment, needs = _header(path.read_text(encoding="utf-8"))
    options = _content(path, folders)
    changes = _load(path)
    bases = [base for base in _bases(changes.pop("defaults", [])) if base != "_self_"]
    target = str(options.pop("_target_", ""))
    changes.pop("_target_", None)
    return Method(
        name,
        path,
        sentence=" ".join(_END.split(comment, maxsplit=1)[0].split()),
        header=" ".join(comment.split()),
        needs=needs,
        target=target,
        options=options,
        base=bases[0] if bases else "",
        changes=cast(dict[str, Any], OmegaConf.to_container(changes, resolve=False)),
    )


def _file(name: str, folders: Sequence[Path]) -> Path:
    return next(path for folder in folders if (path := folder / f"{name}.yaml").is_file())


def _header(text: str) -> tuple[str, tuple[str, ...]]:
    """The comment before the first key, line by line, and the needs."""
    lines, needs = [], ""
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        comment = line.lstrip("#").strip()
        if found := _NEEDS.fullmatch(comment):
            needs = found[1]
        elif not comment.startswith("@package"):
            lines.append(comment)
    return "\n".join(lines).strip(), tuple(filter(None, map(str.strip, needs.split(","))))


def _load(path: Path) -> DictConfig:
    try:
        content = OmegaConf.load(path)
    except Exception as error:  # whatever a YAML parser raises
        raise UserError(f"cannot read {path}: {' '.join(str(error).split())}") from error
    if not isinstance(content, DictConfig):
        raise UserError(f"cannot read {path}: it must hold keys and values")
    return content


def _content(path: Path, folders: Sequence[Path], seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """What a file and those it builds on set, `shared/` left out; raw values."""
    own = _load(path)
    layers = []
    for base in _bases(own.pop("defaults", [])):
        if base == "_self_":
            layers.append(own)
            continue
        try:
            file = _file(base, folders)
        except StopIteration:
            raise UserError(f"{path} builds on {base!r}, which no folder of configs has") from None
        if file in (*seen, path):
            raise UserError(f"{path} builds on itself")
        layers.append(OmegaConf.create(_content(file, folders, (*seen, path))))
    if not any(layer is own for layer in layers):
        layers.append(own)  # as Hydra does
    merged = OmegaConf.to_container(OmegaConf.merge(*layers), resolve=False)
    return cast(dict[str, Any], merged)


def _bases(defaults: Sequence[Any]) -> Iterator[str]:
    """The methods that a list of defaults names; `shared/` and choices of groups are none."""
    for entry in defaults:
        if isinstance(entry, str):
            name = entry.partition("@")[0].removeprefix("/model/")
            if not name.startswith(_SHARED):
                yield name
