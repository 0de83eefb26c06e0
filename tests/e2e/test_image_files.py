"""Damaged files and the cache through the real command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import own_images

Call = Callable[..., int]
TINY = (
    *("dataset=folder", "dataset.source.folder=photos", "dataset.source.verified=verified.csv"),
    *("model/network=small_cnn", "dataset.source.image_format.size=16", "trainer.accelerator=cpu"),
    *("trainer.max_epochs=2", "model.warmup_epochs=1", "dataset.batch_size=8"),
    *("dataset.num_workers=0", "dataset.cache_dir=cache"),
)


@pytest.fixture
def photos(outputs: Path) -> Path:
    root = own_images.folder(outputs.parent / "photos")
    rows = [
        {"path": f"{name}/Bild {i}.jpg"}
        for name in own_images.CLASSES
        for i in range(5)
    ]  # fmt: skip
    own_images.table(outputs.parent / "verified.csv", rows)
    damaged = root / own_images.CLASSES[0] / "Bild 9.jpg"
    damaged.write_bytes(damaged.read_bytes()[:200])
    return root


def test_damaged_files_stop_a_run_or_are_left_out_and_listed(
    mln: Call, photos: Path, outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mln(*TINY) == 2
    said = capsys.readouterr().err
    assert "Bild 9.jpg" in said
    assert "on_bad_image=skip" in said
    assert not list(outputs.rglob("results.json"))

    assert mln(*TINY, "dataset.on_bad_image=skip") == 0
    assert "unreadable images left out: 1, see unreadable.txt" in capsys.readouterr().out
    (run_dir,) = (path.parent for path in outputs.rglob("results.json"))
    (line,) = (run_dir / "unreadable.txt").read_text().splitlines()
    assert line.startswith(f"{own_images.CLASSES[0]}/Bild 9.jpg: it is damaged")
    assert "Bild 9.jpg" not in "".join(
        line
        for line in (run_dir / "labels.csv").read_text().splitlines()
        if line.split(",")[1].startswith(own_images.CLASSES[0])
    )


@pytest.mark.slow
def test_the_cache_changes_nothing(mln: Call, photos: Path, outputs: Path) -> None:
    (photos / own_images.CLASSES[0] / "Bild 9.jpg").unlink()
    assert mln(*TINY) == 0
    files = {path.name: path.stat().st_mtime_ns for path in outputs.parent.glob("cache/images-*")}
    assert len(files) == 2
    assert mln(*TINY, "dataset.cache_dir=null") == 0
    assert mln(*TINY, "dataset.num_workers=2", "seed=0") == 0
    found = [json.loads(path.read_text()) for path in sorted(outputs.rglob("results.json"))]
    assert len(found) == 3
    assert all(run["metrics"] == found[0]["metrics"] for run in found)
    assert all(run["labels"] == found[0]["labels"] for run in found)
    again = {path.name: path.stat().st_mtime_ns for path in outputs.parent.glob("cache/images-*")}
    assert again == files
