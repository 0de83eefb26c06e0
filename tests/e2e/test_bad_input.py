"""Requests the real job cannot meet: one plain sentence, exit code 2, nothing lost."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from processes import command

Call = Callable[..., int]
TINY = ("dataset=blobs", "trainer.max_epochs=2", "trainer.accelerator=cpu")
STEPS = 10  # of an epoch of the blobs: 320 training images, batch 32


@pytest.fixture
def refused(mln: Call, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command that must fail; returns its one sentence."""

    def run(*arguments: str) -> str:
        capsys.readouterr()
        assert mln(*arguments) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1, said
        return said

    return run


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The last checkpoint of a run on the blobs."""
    where = tmp_path_factory.mktemp("trained")
    assert command(where, *TINY, "model=cross_entropy").code == 0
    (checkpoint,) = where.rglob("last.ckpt")
    return checkpoint


def trained_files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.suffix in (".ckpt", ".pt", ".json")]


@pytest.mark.parametrize(
    ("dataset", "file", "others"),
    [
        ("fashion_mnist", "FashionMNIST/raw/train-images-idx3-ubyte.gz", ()),
        (
            "cifar10",
            "cifar-10-batches-py/data_batch_1",
            (*(f"data_batch_{number}" for number in (2, 3, 4, 5)), "test_batch", "batches.meta"),
        ),
        ("cifar100", "cifar-100-python/train", ("test", "meta")),
    ],
)
def test_missing_and_damaged_data(
    refused: Callable[..., str], tmp_path: Path, dataset: str, file: str, others: tuple[str, ...]
) -> None:
    request = (f"dataset={dataset}", "data_dir=here")
    said = refused(*request)
    assert "is not complete" in said
    for name in (Path(file).name, *others):
        assert f"here/{Path(file).parent}/{name}" in said
    assert "download=true" in said
    path = tmp_path / "here" / file
    path.parent.mkdir(parents=True)
    for name in (path.name, *others):
        (path.parent / name).write_bytes(gzip.compress(b"nothing of the kind"))
    said = refused(*request)
    size = path.stat().st_size
    assert "damaged" in said
    assert f"here/{file}" in said
    assert f"({size} bytes)" in said
    assert "expected" in said
    assert trained_files(tmp_path) == []


@pytest.mark.slow
def test_checkpoints_of_something_else(
    refused: Callable[..., str], trained: Path, tmp_path: Path
) -> None:
    text, other, half = (tmp_path / name for name in ("text.ckpt", "other.ckpt", "half.ckpt"))
    text.write_text("no checkpoint")
    torch.save([1, 2], other)
    half.write_bytes(trained.read_bytes()[:-1000])

    def resumed(checkpoint: Path, *changes: str) -> str:
        return refused(*TINY, "model=cross_entropy", *changes, f"ckpt_path={checkpoint}")

    for path in (text, other, half, trained.with_name("classifier.pt")):
        assert f"{path} is not a checkpoint of a run" in resumed(path)
    said = resumed(trained, "model/network=preact_resnet18", "model.network.width=8")
    assert "another model or network" in said
    assert "another model or network" in resumed(trained, "model=metalabelnet")
    said = resumed(trained, "dataset=digits")
    assert "trained on blobs, the data set is digits" in said
    assert "other labels or another split" in resumed(trained, "noise=asym")
    assert "other labels or another split" in resumed(trained, "num_meta=50")
    assert "max_epochs is 1" in resumed(trained, "trainer.max_epochs=1")
    assert trained_files(tmp_path / "outputs") == []


def test_loss_that_is_not_finite_from_the_start(
    refused: Callable[..., str], tmp_path: Path
) -> None:
    said = refused(*TINY, "model.optimizer.lr=1e20")
    assert "not finite at step 2 (epoch 1, batch 2)" in said
    assert "no checkpoint yet" in said
    assert trained_files(tmp_path) == []


def test_loss_that_is_not_finite_keeps_the_last_good_checkpoint(
    refused: Callable[..., str], tmp_path: Path
) -> None:
    request = (*TINY, "model.warmup_epochs=1", "model.virtual_lr=1e30")
    said = refused(*request)
    (last,) = tmp_path.rglob("last.ckpt")
    assert f"not finite at step {STEPS + 1} (epoch 2, batch 1)" in said
    assert f"last good checkpoint is {last.relative_to(tmp_path)}" in said
    saved = torch.load(last, weights_only=True)
    assert saved["global_step"] == STEPS
    assert all(v.isfinite().all() for k, v in saved["state_dict"].items() if "network" in k)
    content = last.read_bytes()
    assert refused(*request) == said
    assert last.read_bytes() == content


@pytest.mark.slow
def test_full_disk(tmp_path: Path) -> None:
    """No file may grow beyond a mebibyte: the first checkpoint does not fit."""
    ended = command(tmp_path, *TINY, largest_file=2**20)
    assert ended.code == 2
    (folder,) = (path.parent for path in tmp_path.rglob("noise.npz"))
    where = folder.relative_to(tmp_path)
    assert ended.err == f"cannot use {where}/best.ckpt: File too large\n"
    assert {path.name for path in folder.iterdir()} == {
        *("config.yaml", "noise.npz", "noise.png", "metrics.csv", "error.txt")
    }
    assert command(tmp_path, *TINY).code == 0


def test_no_place_to_write(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = refused(*TINY, "hydra.sweep.dir=file/outputs")
    assert "Not a directory" in said
    assert "hydra.sweep.dir=" in said


def test_finished_run(refused: Callable[..., str], mln: Call, tmp_path: Path) -> None:
    request = ("dataset=blobs", "trainer.max_epochs=1", "model=cross_entropy")
    assert mln(*request) == 0
    before = {path: path.read_bytes() for path in trained_files(tmp_path)}
    assert len(before) == 4
    assert "overwrite=true" in refused(*request)
    # The successor fails before it has trained anything: the old run comes back.
    refused(*request, "overwrite=true", "+dataset.num_workers=-1")
    assert {path: path.read_bytes() for path in trained_files(tmp_path)} == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("num_meta=400", ["num_meta=400", "400 images"]),
        ("noise=none rate=0.3", ["noise=none", "rate=0.3"]),
        ("dataset.batch_size=0", ["at least 1", "0"]),
        ("dataset.batch_size=1000", ["1000", "320"]),
        ("dataset.meta_batch_size=-1", ["at least 1", "-1"]),
        ("model.warmup_epochs=-1", ["warmup_epochs", "-1"]),
        ("model.meta_backend=jpv", ["jvp", "'jpv'"]),
        ("model.meta_buffers=none", ["copy", "'none'"]),
        ("model.reduction=sum", ["batch", "'sum'"]),
        ("model.head=nowhere", ["nowhere"]),
        ("model/network=torchvision model.network.name=resnet19", ["resnet18"]),
        ("callbacks.checkpoint.every_n_steps=0", ["every_n_steps", "0"]),
        ("+model.widht=3", ["model", "widht"]),
    ],
)
def test_impossible_values(refused: Callable[..., str], change: str, words: list[str]) -> None:
    said = refused(*TINY, *change.split())
    assert [word for word in words if word not in said] == [], said


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_such_device(refused: Callable[..., str]) -> None:
    assert "gpu" in refused("dataset=blobs", "trainer.accelerator=gpu")
