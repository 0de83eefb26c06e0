"""What a newcomer sees, in a log file and on a terminal of 80 columns."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from processes import command

from .conftest import SMALL, Run

SRC = Path(__file__).parents[2] / "src"
NUMBER, PERCENT = r"\d+\.\d{4}", r"\d+\.\d %"
LINES = [
    r"outputs/digits/asym-0\.4/metalabelnet/seed-0-[0-9a-f]{8}",
    r"training   +1,077 images, observed labels, 20\.\d % wrong",
    r"validation +180 images, observed labels",
    r"meta       +180 images, trusted labels",
    r"test       +360 images, clean labels",
    r"",
    r" +epoch +loss +meta loss +validation +labels right",
    rf" +1/3  warm-up +{NUMBER} +- +{PERCENT} +-",
    rf" +2/3 +{NUMBER} +{NUMBER} +{PERCENT} +{PERCENT}",
    rf" +3/3 +{NUMBER} +{NUMBER} +{PERCENT} +{PERCENT}",
    r"┌─+┬─+┐",
    r"│ test accuracy, last epoch +│ +\d+\.\d\d % │",
    r"│ test accuracy, selected epoch \(\d of 3\) +│ +\d+\.\d\d % │",
    r"│ noise rate asked for +│ +40\.00 % │",
    r"│ noise rate measured, all classes +│ +20\.\d\d % │",
    r"│ training labels changed \(labels\.csv\) +│ +\d+ │",
    r"│ training labels right before +│ +79\.\d\d % │",
    r"│ training labels right after correction +│ +\d+\.\d\d % │",
    r"│ wrong labels recovered +│ +\d+ │",
    r"│ right labels damaged +│ +\d+ │",
    r"│ seconds +│ +\d+ │",
    r"└─+┴─+┘",
    r"Everything is in outputs/digits/asym-0\.4/metalabelnet/seed-0-[0-9a-f]{8}",
]


def assert_lines(text: str) -> None:
    lines = text.splitlines()
    wrong = [
        (line, shape)
        for line, shape in zip(lines, LINES, strict=False)
        if not re.fullmatch(shape, line)
    ]
    assert wrong == []
    assert len(lines) == len(LINES)
    assert max(map(len, lines)) <= 80


def test_a_log_file_holds_these_lines_and_no_others(finished: Run) -> None:
    assert_lines(finished.ended.out)
    assert finished.ended.err == ""


@pytest.mark.slow
def test_nor_does_a_fresh_process_print_more(tmp_path: Path) -> None:
    """With its imports: nothing in them may chat."""
    ended = subprocess.run(
        [sys.executable, "-m", "mln_lightning.run", *SMALL, "trainer.accelerator=cpu"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(SRC)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert ended.stderr == ""
    assert_lines(ended.stdout)


def on_a_terminal(folder: Path, columns: int, *arguments: str) -> tuple[int, str]:
    """Exit code and everything written to a pseudo-terminal."""
    master, slave = os.openpty()
    received = bytearray()

    def read() -> None:
        while True:
            try:
                data = os.read(master, 65536)
            except OSError:  # the other side is closed
                return
            if not data:
                return
            received.extend(data)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        ended = command(folder, *arguments, terminal=(os.ttyname(slave), columns))
    finally:
        os.close(slave)
        reader.join(timeout=10)
        os.close(master)
    return ended.code, received.decode()


@pytest.mark.slow
def test_a_terminal_shows_bars_that_fit(tmp_path: Path) -> None:
    code, shown = on_a_terminal(tmp_path, 80, *SMALL, "trainer.accelerator=cpu")
    assert code == 0, shown
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    drawn = re.split(r"[\r\n]+", plain)
    bars = [line for line in drawn if re.match(r"epoch \d/3 ", line)]
    assert any(re.search(r"━.* [1-8]/8 loss \d+\.\d{4} ", line) for line in bars), bars
    assert max(map(len, drawn)) <= 80
    assert "nan" not in plain
    # Bars are wiped out again: what stays are the lines of a log file.
    kept = [line.rstrip() for line in drawn if line.strip() and line not in bars]
    assert_lines("\n".join([*kept[:5], "", *kept[5:]]))


def test_interrupted_on_a_terminal_leaves_no_bar_and_shows_the_cursor(tmp_path: Path) -> None:
    arguments = (*SMALL, "trainer.accelerator=cpu", "model.optimizer.lr=1e20")
    code, shown = on_a_terminal(tmp_path, 80, *arguments)
    assert code == 2
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") > 0
    assert "not finite" in shown.splitlines()[-1]
