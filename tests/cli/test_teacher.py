"""The command that makes scores for feature-dependent noise."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from mln_lightning import teacher
from mln_lightning.crossfit import write_scores
from mln_lightning.data import Splits
from mln_lightning.data.truth import clean_labels
from mln_lightning.datasets import blobs
from mln_lightning.noise import TeacherNoise, noise_rate
from mln_lightning.seeding import generator

TINY = ("dataset=blobs", "trainer=cpu", "trainer.max_epochs=3")
Refused = Callable[..., str]


@pytest.fixture
def refused(outputs: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    """A request that must fail; returns its one sentence."""

    def call(*arguments: str) -> str:
        assert teacher.main(arguments) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1, said
        assert list(outputs.rglob("*.npz")) == []
        return said

    return call


def scores_of(outputs: Path) -> Path:
    (path,) = outputs.rglob("scores.npz")
    return path


def test_scores_of_images_not_seen(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Blobs are easy: nearly all are right, by networks that have not seen them."""
    assert teacher.main(TINY) == 0
    path = scores_of(outputs)
    said = capsys.readouterr().out
    assert path.relative_to(outputs.parent).parts[:3] == ("outputs", "blobs", "teacher")
    assert f"noise=teacher noise.scores={path.relative_to(outputs.parent)}" in said
    with np.load(path) as file:
        fields = {name: file[name] for name in file.files}
    scores, labels = fields["scores"], blobs().train.labels
    assert scores.dtype == np.float64
    assert scores.shape == (400, 4)
    np.testing.assert_allclose(np.exp(scores).sum(axis=1), 1)
    assert np.array_equal(fields["labels"], labels)
    assert len(fields["classes"]) == 4
    accuracy = (scores.argmax(axis=1) == fields["labels"]).mean()
    assert float(fields["accuracy"]) == accuracy > 0.8
    assert f"{100 * accuracy:.2f} %" in said
    # The file is what noise=teacher takes.
    observed = TeacherNoise(path, 4, 0.4)(labels, generator=generator(0))
    assert noise_rate(observed, labels) == 0.4
    # Same seeds, same bits; whatever the global generators did before.
    content = path.read_bytes()
    torch.rand(3)
    assert teacher.main(TINY) == 2
    assert "is there already; overwrite=true replaces it" in capsys.readouterr().err
    assert teacher.main((*TINY, "overwrite=true")) == 0
    assert path.read_bytes() == content
    assert [p.name for p in path.parent.iterdir()] == ["scores.npz"]


def test_no_image_is_scored_by_a_network_that_learnt_from_it(
    outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Labels that cannot be learnt are not known either: random ones are hit by chance."""

    def memorised(**options: object) -> Splits:
        images = torch.randint(256, (400, 1, 8, 8), generator=generator(1), dtype=torch.uint8)
        labels = torch.randint(4, (400,), generator=generator(2))
        part = type(blobs().train)(images, labels, labels)
        return Splits(train=part, test=blobs().test)

    monkeypatch.setattr("mln_lightning.datasets.blobs", memorised)
    job = teacher.admitted(["dataset=blobs", "trainer=cpu", "trainer.max_epochs=8"])
    accuracy = write_scores(job.cfg, outputs / "scores.npz")
    assert accuracy < 0.35


@pytest.mark.parametrize(
    ("request_line", "words"),
    [
        ("dataset=blops", "unknown option dataset=blops; did you mean 'blobs'?"),
        ("dataset=blobs model=metalabelnet", "model=metalabelnet cannot be chosen here"),
        ("dataset=blobs noise=sym rate=0.2", "noise=sym cannot be chosen here"),
        ("dataset=blobs,digits", "one teacher is trained at a time"),
        ("dataset=blobs experiment=digits", "one teacher is trained at a time"),
        ("dataset=blobs rate=0.2", "it adds no noise"),
        ("dataset=blobs seed=-1", "seed=-1 is negative"),
        ("dataset=blobs trainer.devices=2", "trained by one process; use trainer.devices=1"),
        ("dataset=blobs hydra.sweep.dir=file/outputs", "Not a directory"),
        ("dataset=cifar10 data_dir=nowhere", "CIFAR-10 is not complete: nowhere/cifar-10-batches"),
    ],
)
def test_impossible_requests(
    refused: Refused, tmp_path: Path, request_line: str, words: str
) -> None:
    (tmp_path / "file").write_text("")
    assert words in refused(*request_line.split())


def test_training_that_diverges(refused: Refused) -> None:
    said = refused(*TINY, "model.optimizer.lr=1e25")
    assert "The loss was not finite at step" in said


def test_a_class_of_a_single_image(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    given = blobs()
    labels = given.train.labels.clone()
    labels[labels == 3] = 2
    labels[5] = 3
    part = type(given.train)(given.train.images, labels, labels)
    monkeypatch.setattr(
        "mln_lightning.datasets.blobs", lambda **options: Splits(train=part, test=given.test)
    )
    said = refused(*TINY, "num_meta=10%")
    assert "needs at least 2 training images of each class, and class 3 of blobs has 1" in said


def test_clean_labels_must_all_be_known() -> None:
    train = blobs().train
    assert torch.equal(clean_labels(train, name="blobs", purpose="A teacher"), train.labels)
    partly = train.labels.clone()
    partly[:7] = -1
    for clean, number in ((None, 400), (partly, 7)):
        part = type(train)(train.images, train.labels, clean)
        with pytest.raises(ValueError, match=f"blobs does not tell {number} of 400"):
            clean_labels(part, name="blobs", purpose="A teacher")


def test_a_bad_request_is_refused_before_torch_is_imported() -> None:
    code = (
        "import sys; from mln_lightning import teacher; "
        "assert teacher.main(['dataset=blops']) == 2; assert 'torch' not in sys.modules"
    )
    line = [sys.executable, "-c", code]
    ended = subprocess.run(line, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
