"""docs/own_method.md is done as it is written, in a folder of its own."""

from __future__ import annotations

import hashlib
import os
import re
import runpy
import shlex
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import yaml

from mln_lightning.config import conf_dir
from processes import calm, in_a_process

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "own_method.md").read_text()
FILES = dict(re.findall(r"^`([\w./]+)`:\n\n```\w+\n(.*?)^```", PAGE, flags=re.M | re.S))
COMMANDS = re.findall(r"^\$ python (.*)$", PAGE, flags=re.MULTILINE)
NAME = "learned_transition"
SHORT = (
    *("dataset=blobs", "trainer.accelerator=cpu", "trainer.max_epochs=6"),
    *("model.warmup_epochs=2", "model.meta_optimizer.lr=0.05"),
)


class Tutorial(NamedTuple):
    folder: Path
    run_dir: Path


def fingerprint() -> str:
    """Of all that the package consists of."""
    paths = [*(ROOT / "src").rglob("*.py"), *(ROOT / "conf").rglob("*.yaml")]
    content = b"".join(str(path).encode() + path.read_bytes() for path in sorted(paths))
    return hashlib.sha256(content).hexdigest()


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Tutorial:
    """The files are written and the first command is run, on data that take seconds."""
    folder = tmp_path_factory.mktemp("reader")
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    before = fingerprint()
    module, *arguments = shlex.split(COMMANDS[0])[1:]
    assert module == "mln_lightning.run"
    assert in_a_process(_as_reader, folder, (*arguments, *SHORT)) == 0
    assert fingerprint() == before, "the method touched an existing file"
    (checkpoint,) = folder.rglob("last.ckpt")
    return Tutorial(folder, checkpoint.parent)


def _as_reader(folder: Path, arguments: tuple[str, ...]) -> None:
    """``python -m`` finds modules in the working folder."""
    from mln_lightning import run

    calm()
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    sys.argv = ["mln", *arguments]
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        run.main()


def test_the_page_has_four_new_files_and_a_short_method() -> None:
    assert sorted(FILES) == [
        *("look.py", f"my_conf/model/{NAME}.yaml", "my_method.py", "test_my_method.py")
    ]
    assert not (conf_dir() / "model" / f"{NAME}.yaml").exists()
    assert len([line for line in FILES["my_method.py"].splitlines() if line.strip()]) <= 45
    assert all(NAME in command for command in COMMANDS)


def test_phi_finds_the_pattern_of_the_wrong_labels(done: Tutorial) -> None:
    """Blobs of class 0 are called 1, those of 2 are called 3, with probability 0.4."""
    composed = yaml.safe_load((done.run_dir / "config.yaml").read_text())
    assert composed["model"]["_target_"] == "my_method.LearnedTransition"
    checkpoint = torch.load(done.run_dir / "last.ckpt", weights_only=True)
    logits = checkpoint["state_dict"]["table"]
    moved = logits - composed["model"]["sharpness"] * torch.eye(4)
    off_diagonal = moved.masked_fill(torch.eye(4, dtype=torch.bool), float("-inf"))
    assert off_diagonal[0].argmax() == 1
    assert off_diagonal[2].argmax() == 3
    assert moved[0, 0] < 0 < moved[0, 1], "less sure of the observed label than at first"


def test_the_table_is_shown(
    done: Tutorial, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["look.py", str(done.run_dir / "last.ckpt")])
    runpy.run_path(str(done.folder / "look.py"))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert all(re.fullmatch(r"\d is called \d \(\d+ %\), \d \(\d+ %\)", line) for line in lines)
    shown = re.findall(r"^(?:\d is called .*\n){10}", PAGE, flags=re.MULTILINE)
    assert len(shown) == 1, "the page shows what it prints for ten digits"


def test_the_method_is_listed(
    done: Tutorial,
    mln: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(done.folder)
    monkeypatch.syspath_prepend(done.folder)
    assert mln("methods", "--config-dir", "my_conf") == 0
    screen = capsys.readouterr().out
    assert re.search(rf"^{NAME} +Forward correction", screen, flags=re.MULTILINE)
    module, *arguments = shlex.split(COMMANDS[1])[1:]
    assert module == "mln_lightning.methods"
    assert mln("methods", *arguments) == 0
    screen = capsys.readouterr().out
    assert "logit of T's diagonal at the start" in screen
    assert f"python -m mln_lightning.run --config-dir my_conf model={NAME}" in screen


@pytest.mark.filterwarnings("ignore:.*tensorboard")
def test_the_readers_test_passes_and_can_fail(
    done: Tutorial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(done.folder)
    monkeypatch.syspath_prepend(done.folder)
    check = runpy.run_path("test_my_method.py")["test_one_step_is_that_of_the_equations"]
    check()
    import my_method

    forward = my_method.LearnedTransition.explain
    monkeypatch.setattr(
        my_method.LearnedTransition, "explain", lambda *given: 1.01 * forward(*given)
    )
    with pytest.raises(AssertionError):
        check()
