"""Whoever has noisy labels can start: own images train with one command."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

import mln_lightning
import own_images
from processes import command

Call = Callable[..., int]
SMALL = (
    *("model/network=small_cnn", "trainer.accelerator=cpu", "trainer.max_epochs=1"),
    *("dataset.batch_size=8", "dataset.num_workers=0", "model.warmup_epochs=1"),
)


def test_a_folder_with_a_table_of_verified_files(tmp_path: Path) -> None:
    photos = own_images.folder(tmp_path / "meine fotos")
    (photos / "grün" / "Notiz.txt").touch()
    rows = [
        {"path": f"{name}/Bild {i}.jpg", "label": "rot" if (label, i) == (2, 0) else name}
        for label, name in enumerate(own_images.CLASSES)
        for i in range(6)
    ]
    own_images.table(tmp_path / "geprüft.csv", rows)
    ended = command(
        tmp_path,
        "dataset=folder",
        "dataset.source.folder=meine fotos",
        "dataset.source.verified='geprüft.csv'",
        "dataset.source.image_format.size=32",
        *SMALL,
        "trainer.max_epochs=6",
        "model.warmup_epochs=3",
    )
    assert (ended.code, ended.err) == (0, "")
    assert "meta              14 images, trusted labels" in ended.out
    assert "test               4 images, clean labels" in ended.out
    assert "files beside the images that were left aside: 1 (.txt 1)" in ended.out
    assert "1 of 18 verified images carry another observed label" in ended.out
    (run_dir,) = (path.parent for path in tmp_path.rglob("results.json"))
    results = json.loads((run_dir / "results.json").read_text())
    assert results["metrics"]["test/accuracy_last"] >= 0.5
    assert results["noise"]["rate_asked"] is None

    # The run knows what it was trained on when the photos are gone.
    shutil.rmtree(photos)
    info = yaml.safe_load((run_dir / "config.yaml").read_text())["dataset"]["info"]
    assert info["classes"] == list(own_images.CLASSES)
    assert (info["name"], info["shape"]) == ("meine fotos", [3, 32, 32])
    classifier = mln_lightning.load(run_dir)
    assert classifier.info.classes == own_images.CLASSES
    new = torch.stack(
        [
            torch.from_numpy(own_images.pixels(label, 5000 + i, (32, 32)))
            for label in range(3)
            for i in range(8)
        ]
    ).permute(0, 3, 1, 2)
    right = classifier.predict(new) == torch.arange(24) // 8
    assert float(right.double().mean()) > 0.6


def test_a_table_and_arrays(mln: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = own_images.folder(tmp_path / "bilder", each=10)
    rows = [
        {
            "path": path.relative_to(tmp_path),
            "label": "" if path.stem == "Bild 9" else path.parent.name,
            "is_clean": path.stem in ("Bild 0", "Bild 1", "Bild 2"),
        }
        for path in sorted(root.rglob("*.jpg"))
    ]
    table = own_images.table(tmp_path / "liste.csv", rows)
    choice = ("dataset=table", f"dataset.source.table={table}")
    assert mln(*choice, *SMALL, "dataset.source.image_format.size=[24,32]") == 0
    said = capsys.readouterr().out
    assert "3 images, without a label" in said
    assert "meta               7 images" in said
    arrays = own_images.arrays(tmp_path / "daten.npz")
    assert mln("dataset=arrays", f"dataset.source.file={arrays}", *SMALL) == 0
    assert "meta              14 images" in capsys.readouterr().out


def test_what_cannot_be_is_said_as_it_is(
    mln: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The sentences of the listing reach the user without a word of OmegaConf's."""
    own_images.picture(tmp_path / "one" / "class" / "1.jpg")
    (tmp_path / "labels.csv").write_text("path,labels\na.jpg,cat\n")
    (tmp_path / "data.npz").write_text("no arrays")
    size = "dataset.source.image_format.size"
    for request, sentence in {
        ("folder",): "say which folder: dataset.source.folder=<path>",
        ("table",): "say which table: dataset.source.table=<path>",
        ("arrays",): "say which file: dataset.source.file=<path>",
        ("folder", "dataset.source.folder=non"): f"There is no file or folder 'non' in {tmp_path}; "
        "correct dataset.source.folder.",
        ("folder", "dataset.source.folder=one"): "one holds one class only, class: training needs "
        "at least 2, each in a folder of its own.",
        ("table", "dataset.source.table=labels.csv"): "labels.csv has no column 'label'; did you "
        "mean 'labels'; its columns are path, labels.",
        ("arrays", "dataset.source.file=data.npz"): "data.npz is no .npz file; write one with "
        "numpy.savez(path, images=…, labels=…).",
        ("folder", "dataset.source.folder=one", f"{size}=-3"): f"{size}=-3 is not a size; give one "
        "positive whole number, or [height,width]",
        ("folder", "dataset.source.folder=one", "dataset.source.image_format.channels=4"): (
            "dataset.source.image_format.channels=4 is not possible; images have 1 (gray) or 3 "
            "(colour)"
        ),
    }.items():
        dataset, *more = request
        assert mln(f"dataset={dataset}", *more) == 2
        assert capsys.readouterr().err == f"{sentence}\n"
    assert mln("-m", "dataset=folder", "seed=0,1") == 2
    assert capsys.readouterr().err == "say which folder: dataset.source.folder=<path>\n"
    assert not (tmp_path / "outputs").exists()
    assert mln("dataset=folder", "dataset.source.foldr=x") == 2
    assert "did you mean 'dataset.source.folder'?" in capsys.readouterr().err
    (tmp_path / "one" / "other").mkdir()
    own_images.picture(tmp_path / "one" / "other" / "1.jpg")
    assert mln("dataset=folder", "dataset.source.folder=one", "dataset.num_workers=0") == 2
    assert "verify some (dataset.source.verified of a folder" in capsys.readouterr().err
