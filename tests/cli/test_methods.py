"""The list of methods: what their files say, without composing and without torch."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hydra.types import RunMode
from omegaconf import OmegaConf

from mln_lightning import catalog, docstrings, methods
from mln_lightning.config import CONFIG_NAME, _config_loader, conf_dir
from mln_lightning.errors import UserError

NAMES = sorted(path.stem for path in (conf_dir() / "model").glob("*.yaml"))
SRC = Path(__file__).parents[2] / "src"
Call = Callable[..., int]
Screen = pytest.CaptureFixture[str]


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    """Two methods of a reader's own, one of which builds on the other and on one of ours."""
    folder = tmp_path / "my conf" / "model"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text(
        "# Mine (Doe et al. 2030, vs. Roe et al.): keeps [half] of the batch,\n"
        "# every time. More words\n"
        "# follow here.\n"
        "# Needs: two networks, noise rate.\n"
        "defaults:\n  - shared/plain@_here_\n"
        "_target_: mine.Mine\nshare: 0.5\nloss:\n  _target_: mine.loss\n  power: 2\n"
        "optimizer:\n  lr: 0.1\n"
    )
    (folder / "mine_too.yaml").write_text(
        "defaults:\n  - mine\n  - /model/network@network: cnn6\nshare: null\nloss:\n  power: 3\n"
    )
    return folder.parent


def test_every_file_is_listed_once_and_fits(mln: Call, capsys: Screen) -> None:
    assert mln("methods") == 0
    lines = capsys.readouterr().out.splitlines()
    assert sorted(line.split()[0] for line in lines if line.startswith(tuple(NAMES))) == NAMES
    assert f"{len(NAMES)} methods;" in lines[-1]
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize("name", NAMES)
def test_a_page_has_all_options_and_the_command(name: str, mln: Call, capsys: Screen) -> None:
    assert mln("methods", name) == 0
    screen = capsys.readouterr().out
    assert f"python -m mln_lightning.run model={name}" in screen
    one = catalog.method(name)
    assert all(f"model.{key}" in screen for key in one.options)
    assert " ".join(one.header.split()[:5]) in screen


@pytest.mark.parametrize("name", NAMES)
def test_header_and_documented_options(name: str) -> None:
    """What the command prints is worth printing."""
    one = catalog.method(name)
    assert 20 < len(one.sentence) <= 150
    assert one.needs, f"{one.path} has no line '# Needs: …'"
    assert one.needs == (catalog.NOTHING,) or catalog.NOTHING not in one.needs
    silent = [
        key
        for key, _, text in methods.described(one)
        if not text and not key.startswith(("model.meta_optimizer.", "model.scheduler."))
    ]
    assert silent == [], "an option that no docstring explains"


def test_options_are_those_that_hydra_composes() -> None:
    compare_with_hydra("metalabelnet")


@pytest.mark.slow
def test_all_options_are_those_that_hydra_composes() -> None:
    compare_with_hydra(*NAMES)


def compare_with_hydra(*names: str) -> None:
    loader = _config_loader(None)
    for name in names:
        whole = loader.load_configuration(CONFIG_NAME, [f"model={name}"], RunMode.MULTIRUN).model
        composed = OmegaConf.to_container(whole, resolve=False)
        assert isinstance(composed, dict)
        one = catalog.method(name)
        assert_within(one.options, composed)
        assert_within(one.changes, one.options)
        assert composed["_target_"] == one.target


def assert_within(part: Mapping[str, Any], whole: Mapping[str, Any]) -> None:
    for key, value in part.items():
        if isinstance(value, Mapping):
            assert_within(value, whole[key])
        else:
            assert whole[key] == value, key


def test_a_reader_s_own_methods(conf: Path, mln: Call, capsys: Screen) -> None:
    assert mln("methods", "--config-dir", str(conf)) == 0
    screen = " ".join(capsys.readouterr().out.split())
    assert "Mine (Doe et al. 2030, vs. Roe et al.): keeps [half] of the batch, every time" in screen
    assert "needs two networks, noise rate;" in screen
    assert "optimizer.lr=0.1" in screen
    assert "loss=loss(power=2)" in screen
    assert "options as mine, but share=null loss.power=3" in screen
    one = catalog.method("mine_too", conf)
    assert one.options == {
        "share": None,
        "loss": {"_target_": "mine.loss", "power": 3},
        "optimizer": {"lr": 0.1},
    }
    assert (one.target, one.base, one.needs) == ("mine.Mine", "mine", ())
    assert mln("methods", "mine", f"--config-dir={conf}") == 0
    screen = "".join(capsys.readouterr().out.split())
    assert f"--config-dir '{conf}' model=mine".replace(" ", "") in screen
    assert "everytime.Morewordsfollowhere." in screen
    assert "Needs:" not in screen


@pytest.mark.parametrize(
    ("header", "sentence", "needs"),
    [
        ("# One. Two", "One", ()),
        ("# One (Doe et al. 2000). Two\n# Needs: meta set", "One (Doe et al. 2000)", ("meta set",)),
        ("# A 0.5 share\n# of it.\n# log 0 is nothing.", "A 0.5 share of it", ()),
        ("# @package _global_\n# X\n#\n# needs: a, b.", "X", ("a", "b")),
        ("", "", ()),
    ],
)
def test_header(header: str, sentence: str, needs: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "x.yaml").write_text(f"{header}\n_target_: a.B\n# not the header.\n")
    one = catalog.method("x", tmp_path)
    assert (one.sentence, one.needs) == (sentence, needs)


@pytest.mark.parametrize(
    ("needs", "group"),
    [
        ("nothing", 0),
        ("two networks", 0),
        ("noise rate", 1),
        ("two networks, noise rate", 1),
        ("transition matrix (oracle)", 1),
        ("noise rate, meta set", 2),
        ("", 3),
    ],
)
def test_groups(needs: str, group: int, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "x.yaml").write_text(f"# X.\n# Needs: {needs}\n_target_: a.B\n")
    assert catalog.method("x", tmp_path).group == catalog.GROUPS[group]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a: [", "cannot read"),
        ("- a", "keys and values"),
        ("defaults: [nowhere]", "'nowhere', which no folder"),
        ("defaults: [x]", "builds on itself"),
    ],
)
def test_a_bad_file_is_named(content: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "x.yaml").write_text(content)
    with pytest.raises(UserError, match=words) as caught:
        catalog.methods(tmp_path)
    assert "x.yaml" in str(caught.value)


def test_refusals(mln: Call, capsys: Screen) -> None:
    assert mln("methods", "finetun") == 2
    assert "'finetun'; did you mean 'finetune'? methods: " in capsys.readouterr().err
    assert mln("methods", "--config-dir", "nowhere") == 2
    assert "nowhere is not a folder" in capsys.readouterr().err


def test_arguments_are_described_by_the_classes_built_upon(tmp_path: Path) -> None:
    ours = docstrings.definition("mln_lightning.models.MetaLabelNet")
    assert ours is not None
    assert docstrings.meaning(ours, "entropy_weight").startswith("weight λ, at least 0, of the")
    assert "``share`` lets it in" in docstrings.meaning(ours, "meta_buffers"), "of MetaModule"
    network = docstrings.meaning(ours, "network")
    assert network.startswith("any classifier"), "see `NoisyLabelModule`, followed"
    assert network.endswith("; its last linear layer is the head.")
    assert docstrings.meaning(ours, "nonsense") == ""
    inherits = docstrings.definition("mln_lightning.models.Finetune")
    assert inherits is not None
    assert "initial epochs" in docstrings.meaning(inherits, "warmup_epochs"), "no Args of its own"


@pytest.mark.parametrize(
    "name", ["", "nowhere", "nowhere.X", "math.sqrt", "mln_lightning.models.X"]
)
def test_what_is_not_found_is_not_described(name: str) -> None:
    assert docstrings.definition(name) is None


def test_a_function_that_a_package_shows_goes_before_its_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "shop_of_losses"
    package.mkdir()
    (package / "__init__.py").write_text("from shop_of_losses.gce import gce\n")
    (package / "gce.py").write_text(
        'def gce(q):\n    """X.\n\n    Args:\n        q: power.\n    """\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    found = docstrings.definition("shop_of_losses.gce")
    assert found is not None
    assert docstrings.meaning(found, "q") == "power."


def test_torch_is_not_imported() -> None:
    code = (
        "import sys; from mln_lightning import run; sys.argv[1:] = ['methods', 'metalabelnet']\n"
        "try: run.main()\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'lightning'} & set(sys.modules)"
    )
    environment = os.environ | {"PYTHONPATH": str(SRC)}
    ended = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 0, ended.stderr
    assert "model.virtual_lr=1.0" in ended.stdout


@pytest.mark.parametrize(
    ("word", "program"), [("check", "mln_lightning.check"), ("teacher", "mln_lightning.teacher")]
)
def test_mln_finds_other_commands_by_the_first_word(
    word: str, program: str, mln: Call, capsys: Screen
) -> None:
    assert mln(word, "--help") == 0
    assert program in capsys.readouterr().out
    assert mln(word, "dataset=digit") == 2
    assert "did you mean 'digits'" in capsys.readouterr().err
    assert mln("seed=1", word) == 2, "only the first word"
    assert f"cannot read '{word}'" in capsys.readouterr().err
