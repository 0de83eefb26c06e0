"""docs/noise.md speaks of every kind of noise, and shows and says what is so."""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path
from types import ModuleType

import pytest
import torch
import yaml
from PIL import Image

from mln_lightning.data import NoisyLabelDataModule
from mln_lightning.noise import NoiseRecord

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGE = (DOCS / "noise.md").read_text()
KINDS = sorted(path.stem for path in (ROOT / "conf" / "noise").glob("*.yaml"))
PICTURES = sorted((DOCS / "noise").glob("*.png"))
DATA = Path(os.environ.get("MLN_DATA_DIR", "data"))


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("noise_pictures", DOCS / "noise_pictures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_line_in_the_table_and_a_section(kind: str) -> None:
    assert re.search(rf"^\| \[`{kind}`\]\(#{kind}\)", PAGE, flags=re.MULTILINE)
    assert re.search(rf"^### {kind}$", PAGE, flags=re.MULTILINE)


def test_no_other_kind_is_promised() -> None:
    assert sorted(re.findall(r"^\| \[`(\w+)`\]", PAGE, flags=re.MULTILINE)) == KINDS
    assert set(re.findall(r"noise=(\w+)", PAGE)) <= {*KINDS, "fog"}


def test_pictures_are_linked_exist_and_are_small() -> None:
    linked = re.findall(r"!\[[^\]]+\]\((noise/\w+\.png)\)", PAGE)
    assert sorted(linked) == [path.relative_to(DOCS).as_posix() for path in PICTURES]
    assert {Path(link).stem for link in linked} == {*script().FASHION, *script().MATRIX_ONLY}
    for path in PICTURES:
        assert path.stat().st_size < 120_000
        with Image.open(path) as picture:
            picture.load()
            assert picture.height == 700


def test_keys_that_the_page_names_are_there() -> None:
    """`noise.transition.file=…` and the like, in the file of the kind whose section names them."""
    for section in PAGE.split("\n### ")[1:]:
        kind = section.split("\n", 1)[0]
        content = yaml.safe_load((ROOT / "conf" / "noise" / f"{kind}.yaml").read_text())
        for key in re.findall(r"`noise\.([\w.]+)|\bnoise\.([\w.]+)=", section.split("\n## ")[0]):
            place = content.get("noise", content)
            for name in (key[0] or key[1]).rstrip(".").split("."):
                if name not in ("npz", "png"):
                    assert name in place, f"{kind} has no {key}"
                    place = place[name]


def test_the_example_works_as_noise_of_a_data_set(tmp_path: Path) -> None:
    from mln_lightning.data import DatasetInfo
    from mln_lightning.datasets import digits

    (example,) = re.findall(r"```python\n(class Fog.*?)```", PAGE, flags=re.DOTALL)
    names: dict[str, type] = {"torch": torch}
    exec(example, names)
    info = DatasetInfo("digits", 10, (1, 8, 8), (0.5,), (0.5,), num_train=1437)
    data = NoisyLabelDataModule(digits, info, names["Fog"](rate=0.4), num_meta=180)
    data.setup()
    record = data.noise_record()
    wrong = record.observed != record.clean
    assert set(record.observed[wrong].tolist()) == {0}
    assert record.rate_measured == pytest.approx(0.4 * 0.9, abs=0.05)
    record.save(tmp_path / "noise.npz")
    assert NoiseRecord.load(tmp_path / "noise.npz").sha256 == record.sha256


@pytest.mark.slow
@pytest.mark.skipif(not (DATA / "student_logits").is_dir(), reason="real data are not here")
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind in script().FASHION])
def test_rates_are_those_measured(kind: str) -> None:
    rate = script().fashion(kind).noise_rate
    assert re.search(rf"^\| \[`{kind}`\].*\| {100 * rate:.2f} % \|$", PAGE, flags=re.MULTILINE)
