from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from mln_lightning.data import DatasetInfo, ImageArrays, Splits
from mln_lightning.data.cut import Cut
from mln_lightning.data.findings import Findings, look
from mln_lightning.data.scan import Scan
from mln_lightning.report import facts, screen
from mln_lightning.seeding import generator
from mln_lightning.sizes import SampleSize


def images(
    labels: list[int], clean: list[int] | None = None, seed: int = 0, repeats: int = 0
) -> ImageArrays:
    pixels = torch.randint(
        256, (len(labels), 1, 4, 4), dtype=torch.uint8, generator=generator(seed)
    )
    if repeats:
        pixels[-repeats:] = pixels[:repeats]
    return ImageArrays(pixels, torch.tensor(labels), None if clean is None else torch.tensor(clean))


def findings(
    splits: Splits, classes: tuple[str, ...], problems: dict[int, str] | None = None
) -> Findings:
    info = DatasetInfo("mine", len(classes), (1, 4, 4), (0.5,), (0.25,), classes=classes)
    scans = {
        name: Scan(
            torch.arange(len(part)) + 4,
            torch.full((len(part),), 4),
            {"L": len(part)},
            problems or {} if name == "train" else {},
        )
        for name, part in splits.parts().items()
    }
    return look(splits, scans, info, Cut(), used=splits)


def lines(found: Findings, cut: Cut | None = None, **options: object) -> dict[str, str]:
    told = {"noise": None, "dropped": False, "listed": None} | options
    texts: dict[str, str] = {}
    for keyword, text in facts(found, cut or Cut(), **told):
        texts[keyword] = f"{texts[keyword]}\n{text}" if keyword in texts else text
    return texts


def printed(found: Findings) -> str:
    console = Console(file=io.StringIO(), width=80, highlight=False)
    for part in screen(found, facts(found, Cut(), noise=None, dropped=False, listed=None)):
        console.print(part)
    return console.file.getvalue()


ANIMALS = ("ant", "bee", "cat")


def test_labels_of_which_nothing_is_known() -> None:
    found = findings(Splits(images([0, 1, 2])), ANIMALS)
    assert "is not known; 100 images" in lines(found)["labels"]
    assert lines(found)["trusted"] == (
        "3 classes have fewer than 6, the fewest we have measured; verify 18 more: ant 6, bee 6, "
        "cat 6"
    )


def test_labels_of_which_some_are_verified() -> None:
    labels = [0] * 30 + [1] * 30 + [2] * 30
    clean = [0] * 20 + [1] * 5 + [-1] * 5 + [1] * 20 + [-1] * 10 + [2] * 30
    text = lines(findings(Splits(images(labels, clean)), ANIMALS))["labels"]
    assert text == (
        "5 of 75 verified images carry another label; if they were picked at random, about 6.7 % "
        "of all labels are wrong (95 % interval: 2.9 to 14.7 %); most often bee → ant (5)"
    )


def test_labels_of_which_all_are_known() -> None:
    found = findings(Splits(images([0, 1, 2, 2], [0, 1, 2, 1])), ANIMALS)
    assert lines(found)["labels"] == (
        "1 of 4 observed labels are wrong, 25.0 %; most often bee → cat (1)"
    )
    assert "labels" not in lines(found, noise="noise=human"), "it could not be put on them"
    made = replace(found, sets={"train": 4})
    assert lines(made, noise="noise=human")["labels"] == (
        "noise=human makes 25.0 % of them wrong; most often bee → cat (1)"
    )


def test_advice_on_classes() -> None:
    def balance(labels: list[int]) -> str:
        return lines(findings(Splits(images(labels)), ANIMALS))["balance"]

    assert balance([0, 1, 2]) == "all classes have the same number of training images"
    assert (
        balance([0, 1, 1, 2])
        == "the largest class has 2.0 times the training images of the smallest"
    )
    assert "num_meta=20/class" in balance([0, 1, 1, 2, 2, 2, 2])
    assert balance([0, 0]) == "no training image is labelled bee, cat"


def test_duplicates_and_what_to_do_about_them() -> None:
    train = images([0, 1, 2, 0, 1], repeats=1)
    found = findings(Splits(train, test=train.select(torch.tensor([1, 2]))), ANIMALS)
    assert lines(found)["duplicates"].splitlines() == [
        "images of train that are in test too: 2 (row 1 = row 0); dataset.duplicates=drop leaves "
        "them out of train",
        "images of train that repeat others of train: 1",
        "images that occur with different labels: 1",
    ]
    assert "; they are left out of train\n" in lines(found, dropped=True)["duplicates"]
    assert lines(findings(Splits(images([0, 1, 2])), ANIMALS))["duplicates"] == "no exact copies"


def test_missing_sets_and_how_to_get_them() -> None:
    found = findings(Splits(images([0, 1, 2])), ANIMALS)
    assert "dataset.num_test=20%" in lines(found)["missing"]
    assert "dataset.num_val=10%" in lines(found)["missing"]
    tenth = SampleSize.parse("share", "10%")
    assert "missing" not in lines(found, Cut(num_test=tenth, num_val=tenth))


def test_unreadable_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    bad = {1: "a.png: truncated", 2: "b.png: empty", 3: "c.png: no image", 4: "d.png: gone"}
    found = findings(Splits(images([0, 1, 2, 0, 1])), ANIMALS, bad)
    assert lines(found, listed=tmp_path / "bad.txt")["unreadable"] == (
        "a.png: truncated; b.png: empty; c.png: no image; …; all in bad.txt"
    )
    assert "unreadable │     4" in printed(found)


def test_what_the_source_says() -> None:
    splits = Splits(images([0, 1, 2]), notes=("2 files are no images", "nor is a third"))
    assert lines(findings(splits, ANIMALS))["source"] == "2 files are no images\nnor is a third"


def test_sets_of_a_run() -> None:
    found = findings(Splits(images([0, 1, 2])), ANIMALS)
    assert "sets" not in lines(found)
    found = replace(found, sets={"train": 5000, "meta": 10})
    assert lines(found)["sets"] == "train 5,000, meta 10"


@pytest.mark.parametrize("num_classes", [2, 10, 12, 13, 200])
def test_every_screen_fits(num_classes: int) -> None:
    classes = tuple(f"a rather [b]long[/b] name of class {n}, 猫と犬" for n in range(num_classes))
    labels = [label for label in range(num_classes) for _ in range(1 + label % 7)]
    train = images(labels, labels[1:] + labels[:1])
    parts = {name: images([0, 1], seed=seed) for seed, name in enumerate(("a", "b"), start=1)}
    splits = Splits(
        train, **{name: images(labels, seed=9) for name in ("test", "val", "meta")}, also_test=parts
    )
    text = printed(findings(splits, classes))
    rows = text.splitlines()
    assert len(rows) <= 45
    assert max(Console().measure(row).maximum for row in rows) <= 80
    assert "│ trusted │" in text
    assert "│ a rather " in text
    if num_classes == 13:
        assert "… 3 classes between" in text
