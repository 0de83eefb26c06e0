"""A look at the data before a run: real files, through the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mln_lightning import check

Call = Callable[..., int]
SRC = Path(__file__).parents[2] / "src"


def save(path: Path, seed: int, size: tuple[int, int] = (12, 10), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Twelve images of each of three classes, the first eight of each verified."""
    folder = tmp_path / "photos"
    lines = ["path,label"]
    for label, name in enumerate(("ant", "bee", "cat")):
        for number in range(12):
            save(folder / "train" / name / f"{number:02}.png", 100 * label + number)
        lines += [f"{name}/{number:02}.png,{name}" for number in range(8)]
    (folder / "verified.csv").write_text("\n".join(lines))
    return folder


@pytest.fixture
def look(monkeypatch: pytest.MonkeyPatch, outputs: Path) -> Call:
    """Call the command in this process; returns its exit code."""

    def call(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["check", *arguments])
        try:
            check.main()
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    return call


OWN = (
    "dataset=folder",
    "dataset.source.folder=photos/train",
    "dataset.source.verified=photos/verified.csv",
    "dataset.source.image_format.size=8",
    "dataset.batch_size=4",
)
TEST = "dataset.source.test=photos/test"
Screen = pytest.CaptureFixture[str]


def told(capsys: Screen) -> str:
    """The screen in one line."""
    return " ".join(capsys.readouterr().out.split())


def test_bundled_data_are_ready(look: Call, capsys: Screen, outputs: Path) -> None:
    assert look("dataset=digits", "noise=asym", "rate=0.4") == 0
    screen = capsys.readouterr().out
    assert "noise=asym rate=0.4 makes 20." in screen
    assert "train 1,077, val 180, meta 180, test 360" in screen
    assert screen.endswith(
        "Ready to train: python -m mln_lightning.run dataset=digits noise=asym rate=0.4\n"
    )
    rows = screen.splitlines()
    assert len(rows) <= 45
    assert max(map(len, rows[:-1])) <= 80
    assert not outputs.exists()


def test_own_images_are_ready(look: Call, photos: Path, capsys: Screen, outputs: Path) -> None:
    save(photos / "train" / "ant" / "large.png", 1000, (40, 30), mode="L")
    assert look(*OWN) == 0
    screen = told(capsys)
    assert "train: 12 x 10 to 40 x 30, median 12 x 10; 36 RGB, 1 L" in screen
    assert "0 of 24 verified images carry another label" in screen
    assert "95 % interval: 0.0 to 13.8 %" in screen
    assert screen.endswith(f"Ready to train: python -m mln_lightning.run {' '.join(OWN)}")
    assert not outputs.exists()


def test_unreadable_images_stop_it_and_are_listed(
    look: Call, photos: Path, capsys: Screen, outputs: Path
) -> None:
    whole = (photos / "train" / "ant" / "00.png").read_bytes()
    (photos / "train" / "ant" / "00.png").write_bytes(whole[:200])
    (photos / "train" / "bee" / "03.png").write_bytes(b"")
    (photos / "train" / "cat" / "09.png").write_text("no picture")
    assert look(*OWN) == 2
    captured = capsys.readouterr()
    assert "│ unreadable │     3 │" in captured.out
    assert captured.err.startswith(
        "Not ready to train:\nunreadable images: 3; mend them, or leave them out with "
        "dataset.on_bad_image=skip\n"
    )
    listed = (outputs / "unreadable-folder.txt").read_text().splitlines()
    for line, start in zip(
        listed, ("train\tant/00.png: ", "train\tbee/03.png: ", "train\tcat/09.png: "), strict=True
    ):
        assert line.startswith(start)
        assert len(line) > len(start)
    assert [path.name for path in outputs.iterdir()] == ["unreadable-folder.txt"]


def test_unreadable_images_can_be_left_out(look: Call, photos: Path, capsys: Screen) -> None:
    (photos / "train" / "ant" / "00.png").write_bytes(b"")  # the first of all, and verified
    assert look(*OWN, "dataset.on_bad_image=skip") == 0
    screen = told(capsys)
    assert "0 of 23 verified images" in screen
    assert "all in outputs/unreadable-folder.txt" in screen
    assert "Ready to train: " in screen


def test_noise_that_cannot_be_made_is_not_reported(look: Call, capsys: Screen) -> None:
    assert look("dataset=blobs", "noise=human", "data_dir=data") == 2
    found = capsys.readouterr()
    assert "There are no human labels at data/cifar-n/CIFAR-4_human.pt" in found.err
    assert "wrong" not in found.out


def test_copies_of_test_images(look: Call, photos: Path, capsys: Screen) -> None:
    for number in range(3):
        save(photos / "test" / "ant" / f"{number}.png", number)  # as in train
    for number, name in enumerate(("bee", "cat")):
        save(photos / "test" / name / "new.png", 500 + number)
    save(photos / "train" / "cat" / "copy.png", 100)  # a bee
    assert look(*OWN, TEST) == 0
    screen = told(capsys)
    assert "images of train that are in test too: 3 (ant/00.png = ant/0.png)" in screen
    assert "images of train that repeat others of train: 1" in screen
    assert "images that occur with different labels: 1" in screen
    assert "sets train 12, val 1, meta 24, test 5" in screen
    assert look(*OWN, TEST, "dataset.duplicates=drop") == 0
    screen = told(capsys)
    assert "they are left out of train" in screen
    assert "meta 21, test 5" in screen  # the three are trusted, and leave the meta set


def test_verified_labels_that_disagree(look: Call, photos: Path, capsys: Screen) -> None:
    table = (photos / "verified.csv").read_text()
    for number in range(6):
        table = table.replace(f"ant/{number:02}.png,ant", f"ant/{number:02}.png,cat")
    (photos / "verified.csv").write_text(table)
    assert look(*OWN) == 0
    screen = told(capsys)
    assert "6 of 24 verified images carry another label" in screen
    assert "25.0 % of all labels are wrong (95 % interval: 12.0 to 44.9 %)" in screen
    assert "most often cat → ant (6)" in screen
    assert "1 class has fewer than 8" in screen


def test_too_few_trusted_images(look: Call, photos: Path, capsys: Screen) -> None:
    (photos / "verified.csv").write_text(
        "path,label\nant/00.png,ant\nbee/00.png,bee\nbee/01.png,bee"
    )
    assert look(*OWN) == 2
    captured = capsys.readouterr()
    told_so = " ".join(captured.out.split())
    assert "3 classes have fewer than 8 (6 for the meta set, the fewest we have" in told_so
    assert "measured, 2 to test on); " in told_so
    assert "verify 21 more: cat 8, ant 7, bee 6" in told_so
    assert captured.err.startswith("Not ready to train:\nThe meta set needs at least one sample")


def test_classes_of_different_sizes(look: Call, photos: Path, capsys: Screen) -> None:
    for number in range(12, 50):
        save(photos / "train" / "ant" / f"{number}.png", 5000 + number)
    assert look(*OWN) == 0
    assert "the largest class has 4.2 times" in told(capsys)


def test_missing_data_are_the_sources_own_words(
    look: Call, photos: Path, capsys: Screen, outputs: Path
) -> None:
    assert look(*OWN, "dataset.source.test=elsewhere") == 2
    captured = capsys.readouterr()
    assert "elsewhere" in captured.err
    assert len(captured.err.splitlines()) == 1
    assert captured.out == ""
    assert look("dataset=cifar10", "data_dir=elsewhere") == 2
    assert "download=true" in capsys.readouterr().err
    assert not outputs.exists()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("dataset=digit", "did you mean 'digits'?"),
        ("rate=1.5", "outside [0, 1)"),
        ("data_seed=0,1", "data_seed"),
        ("experiment=digits", "only the data of one run"),
    ],
)
def test_a_wrong_command_line(look: Call, capsys: Screen, line: str, words: str) -> None:
    assert look(*line.split()) == 2
    assert words in capsys.readouterr().err


def test_an_interrupt_is_no_traceback(
    look: Call, capsys: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(job: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(check, "report", interrupted)
    assert look() == 130
    assert capsys.readouterr().err == "Stopped.\n"


def test_an_unexpected_error_keeps_its_traceback(
    look: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(job: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(check, "report", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        look()


def test_a_list_that_cannot_be_written(
    look: Call, photos: Path, capsys: Screen, outputs: Path
) -> None:
    (photos / "train" / "ant" / "00.png").write_bytes(b"")
    outputs.write_text("in the way")
    assert look(*OWN) == 2
    assert "cannot use outputs" in capsys.readouterr().err


def test_a_wrong_command_line_is_refused_without_torch(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None; sys.argv[1:] = ['dataset=digit']; "
        "from mln_lightning.check import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(SRC)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, "did you mean 'digits'?" in done.stderr) == (2, True), done.stderr


@pytest.mark.slow
@pytest.mark.skipif(
    not (Path(os.environ.get("MLN_DATA_DIR", "data")) / "FashionMNIST").is_dir(),
    reason="Fashion-MNIST is not here",
)
def test_fashion_mnist(look: Call, capsys: Screen, outputs: Path) -> None:
    assert look("dataset=fashion_mnist", "noise=asym", "rate=0.4") == 0
    screen = told(capsys)
    assert "noise=asym rate=0.4 makes 20.0 % of them wrong" in screen
    assert "all classes have the same number of training images" in screen
    assert "no exact copies" in screen
    assert "train 58,000, val 1,000, meta 1,000, test 10,000" in screen
    assert not outputs.exists()
