"""What was wrong with a command line, in one sentence with the nearest known name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, OverrideParseException
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException, ValidationError

from mln_lightning.errors import UserError

_NO_CHOICE = ("data",)  # a folder of configs, but nothing to choose from
REQUIRED_GROUPS = ("dataset", "noise", "model", "trainer")  # a folder name or a run needs them


def explain(
    error: Exception,
    overrides: Sequence[str],
    loader: ConfigLoader,
    config_name: str,
    *,
    sweep: bool = False,
) -> UserError:
    """Translate an error of Hydra or OmegaConf that `overrides` provoked.

    A sentence that was meant for the user is passed on as it is.

    Args:
        error: as caught.
        overrides: the `key=value` strings that were composed.
        loader: knows the groups, their options and the keys.
        config_name: name of the primary config file.
        sweep: whether several values for one key were allowed.
    """
    if (meant := _meant_for_the_user(error)) is not None:
        return meant
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except OverrideParseException as bad:
        return UserError(
            f"cannot read {bad.override!r}: every override is key=value, with quotes around a "
            "value that holds brackets, commas, ~ or letters beyond a-z, such as "
            "\"dataset.source.folder='~/Büro'\""
        )
    said = _sentences(error, parsed, loader, config_name, sweep=sweep)
    return UserError(next(filter(None, said), _plain(error)))


def _meant_for_the_user(error: BaseException | None) -> UserError | None:
    """The error that a resolver raised, which OmegaConf wraps without naming it as the cause."""
    while error is not None and not isinstance(error, UserError):
        error = error.__cause__ or error.__context__
    return error


def _sentences(
    error: Exception,
    parsed: list[Override],
    loader: ConfigLoader,
    config_name: str,
    *,
    sweep: bool,
) -> Iterator[str | None]:
    """Explanations in order of certainty, each made only if those before it did not apply."""
    for override in parsed:
        yield None if sweep else _needs_sweep(override)
    for override in parsed:
        yield _bad_option(override, loader)
    yield _bad_type(error, parsed)
    yield from _bad_keys(parsed, loader, config_name)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or `;` when no known word is near."""
    return _hint(_near(word, known))


def _near(word: str, known: Iterable[str]) -> list[str]:
    return get_close_matches(word, list(known), n=1, cutoff=0.5)


def _hint(names: list[str]) -> str:
    return f"; did you mean {names[0]!r}?" if names else ";"


def _needs_sweep(override: Override) -> str | None:
    if not override.is_sweep_override():
        return None
    return (
        f"{override.input_line!r} names several values; write -m before the overrides to run "
        "one job for each"
    )


def _bad_option(override: Override, loader: ConfigLoader) -> str | None:
    """An unknown option of a known group."""
    group = override.key_or_group
    options = loader.get_group_options(group, ObjectType.CONFIG)
    if not options or group in _NO_CHOICE:
        return None
    if group in REQUIRED_GROUPS and (override.is_delete() or isinstance(override.value(), list)):
        return f"{override.input_line!r}: a run needs exactly one {group}: {', '.join(options)}"
    if override.is_delete():
        return None
    if override.value() is None:
        return f"{override.input_line!r}: a group is left out with ~{group}"
    for value in _values(override):
        if value not in options:
            return (
                f"unknown option {group}={value}{did_you_mean(value, options)} "
                f"options of {group}: {', '.join(options)}"
            )
    return None


def _values(override: Override) -> Iterator[str]:
    """The option names in an override of a group: one, a sweep's, or a list's."""
    if override.is_sweep_override():
        return (str(name) for name in override.sweep_string_iterator())
    value = override.value()
    return (str(name) for name in (value if isinstance(value, list) else [value]))


def _bad_type(error: Exception, parsed: list[Override]) -> str | None:
    """A value that a typed root key cannot hold."""
    cause = error if isinstance(error, ValidationError) else error.__cause__
    if not isinstance(cause, ValidationError):
        return None
    key = str(cause.full_key)
    line = next((o.input_line for o in parsed if o.key_or_group == key), key)
    return f"bad value in {line!r}: {_first_line(cause)}"


def _bad_keys(
    parsed: list[Override], loader: ConfigLoader, config_name: str
) -> Iterator[str | None]:
    """Keys that the chosen options do not have."""
    choices: list[Override] = []
    values: list[Override] = []
    for override in parsed:
        group = override.key_or_group
        is_group = bool(loader.get_group_options(group, ObjectType.CONFIG)) and (
            group not in _NO_CHOICE
        )
        (choices if is_group else values).append(override)
    lines = [o.input_line for o in choices if o.input_line and not o.is_sweep_override()]
    try:
        cfg = loader.load_configuration(config_name, lines, RunMode.RUN)
    except (HydraException, OmegaConfBaseException, ValueError):
        return  # something deeper is wrong; the original error tells more
    keys = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(keys, dict)
    groups = list(_groups(loader))
    for override in values:
        if not (override.is_add() or override.is_force_add()):
            yield _unknown_key(keys, override, groups)


def _groups(loader: ConfigLoader, parent: str = "") -> Iterator[str]:
    """All config groups such as `noise` and `model/network`, Hydra's own excepted."""
    for name in loader.get_group_options(parent, ObjectType.GROUP):
        if name != "hydra" and name not in _NO_CHOICE:
            group = f"{parent}/{name}" if parent else name
            yield group
            yield from _groups(loader, group)


def _unknown_key(keys: dict[Any, Any], override: Override, groups: list[str]) -> str | None:
    """The first part of a dotted key that does not exist, with the nearest one that does."""
    key = override.key_or_group
    node: Any = keys
    parent = ""
    for part in key.split("."):
        if not isinstance(node, dict):
            return f"unknown key {key!r}: {parent} is a single value without keys of its own"
        if part not in node:
            return _explain_key(key, part, parent, node, groups, keys)
        node, parent = node[part], f"{parent}.{part}" if parent else part
    return None


def _explain_key(
    key: str,
    part: str,
    parent: str,
    node: dict[Any, Any],
    groups: list[str],
    keys: dict[Any, Any],
) -> str:
    known = sorted(str(name) for name in node)
    if part in known:  # a map with numbers as keys
        return f"{key!r} cannot be set alone; give the whole map: {parent}={{…}}"
    if not parent:
        if part in groups:
            return f"the group {part} has no options to choose from"
        known = sorted({*known, *groups} - {"hydra"})
    elsewhere = [path for path in _paths(keys) if path.rpartition(".")[2] == part]
    near = [f"{parent}.{name}" if parent else name for name in _near(part, known)]
    hint = _hint(elsewhere or near)
    where = f"keys of {parent}" if parent else "root keys and groups"
    sentence = f"unknown key {key!r}{hint} {where}: {', '.join(known)}"
    return f"{sentence}; +{key}=… adds one" if parent else sentence


def _paths(node: dict[Any, Any], prefix: str = "") -> Iterator[str]:
    """All dotted keys below a node, Hydra's own excepted."""
    for name, child in node.items():
        path = f"{prefix}{name}"
        if path == "hydra":
            continue
        yield path
        if isinstance(child, dict):
            yield from _paths(child, f"{path}.")


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _plain(error: Exception) -> str:
    """Hydra's own words on one line; the cause, if any, knows the detail."""
    texts = [text for text in (str(error), str(error.__cause__ or "")) if text.strip()]
    lines = (line.strip() for text in texts for line in text.splitlines())
    return "; ".join(line for line in lines if line and not line.startswith("object_type"))
