"""Images in folders, one for each class."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from mln_lightning.listing.classes import Classes, same_form, shown
from mln_lightning.listing.columns import read_columns
from mln_lightning.listing.parts import Labels, Listing, Part
from mln_lightning.listing.tree import require_folder, subfolders, tree

StrPath = str | os.PathLike[str]

_PART_NAMES = frozenset(("train", "training", "val", "valid", "validation", "test", "meta"))


def list_folder(
    folder: StrPath,
    *,
    verified: StrPath | None = None,
    meta: StrPath | None = None,
    val: StrPath | None = None,
    test: StrPath | None = None,
    unlabelled: StrPath | None = None,
    classes: Sequence[object] | None = None,
) -> Listing:
    """List images whose class is the sub-folder they lie in, at any depth.

    The arguments are those of `mln_lightning.datasets.folder`.

    Raises:
        FileNotFoundError: a folder or a file is missing.
        ValueError: the folders do not hold what they should, or a class is not among the others.
        OSError: a folder or a file cannot be read.
    """
    root = require_folder(folder, "dataset.source.folder")
    others = {
        key: require_folder(path, f"dataset.source.{key}")
        for key, path in (("meta", meta), ("val", val), ("test", test), ("unlabelled", unlabelled))
        if path is not None
    }
    found = _class_folders(root, "dataset.source.folder", leave_out=others.values())
    if classes is None:
        _check_names(found, root)
    known = Classes.of(found.images, classes)
    if classes is None and (empty := [name for name, paths in found.images.items() if not paths]):
        raise ValueError(
            f"{root / empty[0]} holds no image{_instead(found.others)}: add some, remove the "
            "folder, or name the classes with dataset.source.classes."
        )
    train = _part(found, known)
    if not len(train):
        raise ValueError(f"{root} holds no image{_instead(found.others)}.")
    skipped = Counter(found.others)
    if "unlabelled" in others:
        more = tree(others["unlabelled"])
        if not more.images:
            raise ValueError(f"{others['unlabelled']} holds no image{_instead(more.others)}.")
        paths = [str(others["unlabelled"].absolute() / path) for path in more.images]
        observed = [*train.labels.observed, *[None] * len(paths)]
        train = Part(root, train.paths + paths, _labels(observed))
        skipped += more.others
    if verified is not None:
        train = _verify(train, verified, known)
    own = {}
    for key in ("meta", "val", "test"):
        if key in others:
            extra = _class_folders(others[key], f"dataset.source.{key}")
            own[key] = _part(extra, known)
            skipped += extra.others
            if not len(own[key]):
                raise ValueError(f"{others[key]} holds no image{_instead(extra.others)}.")
    return Listing(
        known,
        train,
        val=own.get("val"),
        meta=own.get("meta"),
        test=own.get("test"),
        notes=_notes(skipped),
    )


@dataclass(frozen=True)
class _ClassFolders:
    """A folder with one folder for each class: name → images, and files of other kinds."""

    root: Path
    images: dict[str, list[str]]
    others: Counter[str]


def _class_folders(root: Path, key: str, *, leave_out: Collection[Path] = ()) -> _ClassFolders:
    beside = tree(root, deep=False)
    elsewhere = {path.resolve() for path in leave_out}
    names = [name for name in subfolders(root) if (root / name).resolve() not in elsewhere]
    if not names and not beside.images:
        raise ValueError(
            f"{root} has no folder in it{_instead(beside.others)}; {key} should hold a folder for "
            "each class."
        )
    if beside.images:
        raise ValueError(
            f"{len(beside.images)} images lie in {root} itself, such as {beside.images[0]}, and "
            "not in the folder of a class: move them into one, or leave them out of "
            f"{key}; images whose class is in a table are read with dataset=table."
        )
    images: dict[str, list[str]] = {}
    others = beside.others
    for name in names:
        below = tree(root / name)
        images[name] = [f"{name}/{path}" for path in below.images]
        others += below.others
    return _ClassFolders(root, images, others)


def _check_names(found: _ClassFolders, root: Path) -> None:
    """Refuse parts of a data set in place of classes; they would train without any error."""
    if len(found.images) < 2:
        raise ValueError(
            f"{root} holds one class only, {shown(list(found.images))}: training needs at least 2, "
            "each in a folder of its own."
        )
    if _PART_NAMES.issuperset(name.casefold() for name in found.images):
        first = next(iter(found.images))
        raise ValueError(
            f"The folders {shown(list(found.images))} in {root} look like parts of a data set, not "
            f"classes: use dataset.source.folder={root / first} and so on, with "
            "dataset.source.val, meta and test for the others; or name the classes with "
            "dataset.source.classes."
        )


def _part(found: _ClassFolders, classes: Classes) -> Part:
    paths: list[str] = []
    labels: list[int | None] = []
    for name, images in found.images.items():
        number = classes.number(name, str(found.root)) if images else None
        paths += images
        labels += [number] * len(images)
    return Part(found.root, paths, _labels(labels))


def _labels(observed: list[int | None]) -> Labels:
    return Labels(observed, [None] * len(observed), [False] * len(observed))


def _verify(train: Part, verified: StrPath, classes: Classes) -> Part:
    """Add the true classes that a table of verified files tells."""
    table = read_columns(
        verified, key="dataset.source.verified", required=["path"], optional=["label"]
    )
    starts = [os.path.abspath(train.root), os.path.abspath(table.path.parent)]
    rows = {_place(starts[0], path): row for row, path in enumerate(train.paths)}
    observed = train.labels.observed
    truth: list[int | None] = [None] * len(train)
    seen: dict[int, str] = {}
    for line, path in enumerate(table["path"]):
        where = table.where(line)
        places = [_place(start, path) for start in starts]
        row = next((rows[place] for place in places if place in rows), None)
        if row is None:
            name = Path(path).name
            alike = next((p for p in train.paths if Path(p).name == name), None)
            hint = f"; did you mean {alike!r}" if alike else ""
            raise ValueError(
                f"{where}: {path!r} is not one of the training images{hint}. Give paths that start "
                f"from {train.root}, from the table's folder, or from /."
            )
        if row in seen:
            raise ValueError(f"{where}: {path!r} is verified in {seen[row]} too; remove one.")
        seen[row] = table.short(line)
        if "label" in table:
            if not table["label"][line]:
                raise ValueError(f"{where}: there is no label; give {path!r} the class it shows.")
            truth[row] = classes.number(table["label"][line], where)
        elif observed[row] is None:
            raise ValueError(
                f"{where}: {path!r} is unlabelled; add a column label that says what it shows."
            )
        else:
            truth[row] = observed[row]
    trusted = [true is not None for true in truth]
    return Part(train.root, train.paths, Labels(observed, truth, trusted))


def _place(start: str, path: str) -> str:
    return same_form(os.path.normpath(os.path.join(start, path)))


def _instead(others: Counter[str]) -> str:
    if not others:
        return ""
    suffixes = [suffix or "no suffix" for suffix, _ in others.most_common()]
    return f", only {others.total()} files that are none by their names ({shown(suffixes)})"


def _notes(skipped: Counter[str]) -> tuple[str, ...]:
    if not skipped:
        return ()
    kinds = shown([f"{suffix or 'no suffix'} {n}" for suffix, n in sorted(skipped.items())])
    return (f"files beside the images that were left aside: {skipped.total()} ({kinds})",)
