"""One screen of what was found in a data set, at most 80 columns wide."""

from __future__ import annotations

import math
from pathlib import Path

from rich import box
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text
from torch import Tensor

from mln_lightning.data.cut import Cut
from mln_lightning.data.duplicates import Duplicates
from mln_lightning.data.findings import FEWEST_TRUSTED, Findings, PartFindings
from mln_lightning.files import shown

WIDTH = 80
_FEW = 12  # so many classes are all shown; of more only the smallest and the largest
_ENDS = 5
_EXAMPLES = 3
_NAME, _LEAST_NAME = 24, 8  # columns for the name of a class
_FRAME = 3  # columns of a table that are no text, for each of its columns
_IMBALANCED = 3.0  # largest class over smallest

Facts = list[tuple[str, str]]


def screen(findings: Findings, facts: Facts) -> list[Text | Table]:
    """A title, a table of the classes and the facts, to be printed one below the other.

    Args:
        findings: of a data set.
        facts: a keyword and a sentence or two each.
    """
    info = findings.info
    k, h, w = info.shape
    kind = {1: "gray", 3: "colour"}.get(k, f"{k}-channel")
    title = f"{info.name}: {info.num_classes} classes, trained on as {w} x {h} {kind} images"
    grid = Table.grid(padding=(0, 2))
    grid.add_column(min_width=10, no_wrap=True)
    grid.add_column(overflow="fold")
    before = ""
    for keyword, text in facts:
        grid.add_row("" if keyword == before else keyword, Text(text))
        before = keyword
    return [Text(title, style="bold"), class_table(findings), grid]


def class_table(findings: Findings) -> Table:
    """Images of each class in each part, and those a meta set can be cut from."""
    parts = findings.parts
    train = parts["train"].counts
    columns = [*(part.counts for part in parts.values()), findings.trusted]

    def row(label: int) -> tuple[str, ...]:
        first, *others = (f"{int(counts[label]):,}" for counts in columns)
        share = f"{100 * int(train[label]) / max(1, int(train.sum())):.1f} %"
        return (class_name(findings, label), first, share, *others)

    if len(train) <= _FEW:
        rows: list[tuple[str, ...]] = [row(label) for label in range(len(train))]
    else:
        ranked = train.argsort(stable=True).tolist()
        between = (f"… {len(train) - 2 * _ENDS} classes between",)
        smallest, largest = ranked[:_ENDS], ranked[-_ENDS:]
        rows = [*map(row, smallest), between, *map(row, largest)]
    first, *others = (f"{int(counts.sum()):,}" for counts in columns)
    sums: list[tuple[str, ...]] = [("all", first, "", *others)]
    for name, numbers in (
        ("unlabelled", [part.unlabelled for part in parts.values()]),
        ("unreadable", [len(part.unreadable) for part in parts.values()]),
    ):
        if any(numbers):
            sums.append((name, f"{numbers[0]:,}", "", *(f"{n:,}" for n in numbers[1:])))

    header = ("class", "train", "share", *list(parts)[1:], "trusted")
    widths = [
        max(cell_len(cells[column]) for cells in (header, *rows, *sums) if column < len(cells))
        for column in range(len(header))
    ]
    room = WIDTH - 1 - sum(width + _FRAME for width in widths[1:]) - _FRAME
    table = Table(box=box.ROUNDED)
    table.add_column("class", no_wrap=True, max_width=min(_NAME, max(_LEAST_NAME, room)))
    for name in header[1:]:
        table.add_column(Text(name), justify="right", no_wrap=True)
    for entry in rows:
        table.add_row(*map(Text, entry))
    table.add_section()
    for entry in sums:
        table.add_row(*entry)
    return table


def class_name(findings: Findings, label: int) -> str:
    """The name of a class, or its number where it has none."""
    return findings.info.class_names[label]


def facts(
    findings: Findings,
    cut: Cut,
    *,
    noise: str | None,
    dropped: bool,
    listed: Path | None,
) -> Facts:
    """What a user should know, and can do about it.

    Args:
        findings: of a data set.
        cut: sizes asked for.
        noise: what puts noise on the labels, as on the command line; None = nothing does.
        dropped: whether copies are left out of the earlier of two parts.
        listed: the file that names all unreadable images; None = there are none.
    """
    rows = [("source", text) for text in findings.notes]
    rows += [("pixels", text) for text in _pixels(findings)]
    if listed is not None:
        rows.append(("unreadable", _unreadable(findings, listed)))
    rows += [("labels", text) for text in _labels(findings, noise)]
    rows.append(("balance", _balance(findings)))
    rows.append(("trusted", _trusted(findings)))
    rows += [("duplicates", text) for text in _copies(findings.duplicates, dropped)]
    rows += [("missing", text) for text in _missing(findings, cut)]
    if findings.sets:
        sets = ", ".join(f"{name} {size:,}" for name, size in findings.sets.items())
        rows.append(("sets", sets))
    return rows


def _pixels(findings: Findings) -> list[str]:
    """Sizes and modes, once for the parts that are alike."""
    alike: dict[str, list[str]] = {}
    for name, part in findings.parts.items():
        if part.sizes:
            alike.setdefault(_size(part), []).append(name)
    return [f"{', '.join(names)}: {text}" for text, names in alike.items()]


def _size(part: PartFindings) -> str:
    low, median, high = (f"{width} x {height}" for width, height in part.sizes)
    text = low if low == high else f"{low} to {high}, median {median}"
    if len(part.modes) == 1:
        return f"{text}, {next(iter(part.modes))}"
    modes = sorted(part.modes.items(), key=lambda mode: (-mode[1], mode[0]))
    return f"{text}; " + ", ".join(f"{count:,} {mode}" for mode, count in modes)


def _unreadable(findings: Findings, listed: Path) -> str:
    bad = [entry for part in findings.parts.values() for entry in part.unreadable]
    examples = [*bad[:_EXAMPLES], *(["…"] if len(bad) > _EXAMPLES else [])]
    return f"{'; '.join(examples)}; all in {shown(listed)}"


def _labels(findings: Findings, noise: str | None) -> list[str]:
    found = findings.agreement
    if found is None:
        return [
            "how many are wrong is not known; 100 images, picked at random and verified, tell it "
            "to within 10 points, 400 to within 5"
        ]
    if noise is not None and not findings.sets:
        return []  # it could not be put on them
    rate = f"{100 * found.wrong / found.known:.1f} %"
    if noise is not None:
        text = f"{noise} makes {rate} of them wrong"
    elif found.known == int(findings.parts["train"].counts.sum()):
        text = f"{found.wrong:,} of {found.known:,} observed labels are wrong, {rate}"
    else:
        text = (
            f"{found.wrong:,} of {found.known:,} verified images carry another label; if they were "
            f"picked at random, about {rate} of all labels are wrong (95 % interval: "
            f"{100 * found.low:.1f} to {100 * found.high:.1f} %)"
        )
    pairs = [
        f"{class_name(findings, true)} → {class_name(findings, label)} ({count:,})"
        for true, label, count in found.pairs[:_EXAMPLES]
    ]
    return [f"{text}; most often {', '.join(pairs)}" if pairs else text]


def _balance(findings: Findings) -> str:
    ratio = findings.imbalance
    if math.isinf(ratio):
        empty = findings.parts["train"].counts == 0
        return f"no training image is labelled {_listed(findings, empty.long(), numbers=False)}"
    if ratio == 1:
        return "all classes have the same number of training images"
    text = f"the largest class has {ratio:.1f} times the training images of the smallest"
    if ratio <= _IMBALANCED:
        return text
    return (
        f"{text}; accuracy tells little about small classes, so look at each of them, and let "
        "num_meta=20/class (or another number) give all the same say in the meta set"
    )


def _trusted(findings: Findings) -> str:
    wanted, missing = findings.wanted, findings.missing_trusted
    why = ", the fewest we have measured" if wanted.meta == FEWEST_TRUSTED else ""
    rule = f"{sum(wanted)}{why}"
    if wanted.test:
        rule = f"{sum(wanted)} ({wanted.meta} for the meta set{why}, {wanted.test} to test on)"
    if not int(missing.sum()):
        return f"{int(findings.trusted.min()):,} or more of each class; wanted are {rule}"
    short = int((missing > 0).sum())
    return (
        f"{short} {'class has' if short == 1 else 'classes have'} fewer than {rule}; verify "
        f"{int(missing.sum()):,} more: {_listed(findings, missing)}"
    )


def _listed(findings: Findings, counts: Tensor, *, numbers: bool = True) -> str:
    """The classes of the largest counts, largest first, zeros left out."""
    ranked = counts.argsort(descending=True, stable=True)[: int((counts > 0).sum())].tolist()
    words = [
        f"{class_name(findings, label)} {int(counts[label]):,}"
        if numbers
        else class_name(findings, label)
        for label in ranked[:_ENDS]
    ]
    if len(ranked) > _ENDS:
        words.append(f"… ({len(ranked) - _ENDS} more classes)")
    return ", ".join(words)


def _copies(duplicates: Duplicates, dropped: bool) -> list[str]:
    texts = []
    for (earlier, later), count in duplicates.across().items():
        first, second = next(
            (place.name, other.name)
            for group in duplicates.groups
            for place in group
            for other in group
            if (place.part, other.part) == (earlier, later)
        )
        done = "they are left" if dropped else "dataset.duplicates=drop leaves them"
        texts.append(
            f"images of {earlier} that are in {later} too: {count:,} ({first} = {second}); "
            f"{done} out of {earlier}"
        )
    for part, count in duplicates.within().items():
        texts.append(f"images of {part} that repeat others of {part}: {count:,}")
    if duplicates.conflicts:
        texts.append(f"images that occur with different labels: {duplicates.conflicts:,}")
    return texts or ["no exact copies"]


def _missing(findings: Findings, cut: Cut) -> list[str]:
    texts = []
    if "test" not in findings.parts and cut.num_test is None:
        texts.append("a test set: dataset.num_test=20% cuts one from the trusted images")
    if "val" not in findings.parts and cut.num_val is None:
        texts.append("a validation set: dataset.num_val=10% cuts one to select the best epoch")
    return texts
