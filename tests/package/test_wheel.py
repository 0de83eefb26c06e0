"""The wheel carries its configs and works from a folder that has nothing to do with the source."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*command: str, cwd: Path, **environment: str) -> str:
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    ended = subprocess.run(
        command, cwd=cwd, env=kept | environment, capture_output=True, text=True, timeout=300
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the source archive, as a package index would get it."""
    pytest.importorskip("hatchling")
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT), cwd=out)
    (path,) = out.glob("*.whl")
    return path


@pytest.mark.slow
def test_wheel_holds_every_config(wheel: Path) -> None:
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".yaml")}
    conf = ROOT / "conf"
    assert inside == {
        f"mln_lightning/conf/{path.relative_to(conf).as_posix()}" for path in conf.rglob("*.yaml")
    }
    assert "mln_lightning/conf/config.yaml" in inside


@pytest.mark.slow
def test_installed_wheel_runs_from_anywhere(wheel: Path, tmp_path: Path) -> None:
    site, here = tmp_path / "site", tmp_path / "here"
    here.mkdir()
    install = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(site)]
    run(sys.executable, *install, str(wheel), cwd=here)
    shown = ["--cfg", "job", "rate=0.3"]
    module = run(
        *(sys.executable, "-m", "mln_lightning.run", *shown),
        cwd=here,
        PYTHONPATH=str(site),
    )
    script = run(
        *(sys.executable, str(site / "bin" / "mln"), *shown),
        cwd=here,
        PYTHONPATH=str(site),
    )
    assert module == script
    assert "rate: 0.3" in module
    where = "from mln_lightning.config import conf_dir; print(conf_dir())"
    packaged = run(sys.executable, "-c", where, cwd=here, PYTHONPATH=str(site)).strip()
    assert Path(packaged).resolve() == (site / "mln_lightning" / "conf").resolve()
    assert list(here.iterdir()) == []
