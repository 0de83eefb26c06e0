"""Test sets beside the first, and what people saw in the test images."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn
from torch.nn.functional import one_hot

from mln_lightning.data import DatasetInfo, NoisyLabelDataModule, Splits
from mln_lightning.datasets import blobs
from mln_lightning.evaluation import further_metrics, soft_test_labels
from mln_lightning.evaluation import test_accuracy as accuracy_on_test
from mln_lightning.models import Supervised

INFO = DatasetInfo("blobs", 4, (1, 8, 8), (0.5,), (0.3,))


def source(test: bool = True) -> Splits:
    splits = blobs()
    assert splits.test is not None
    other = blobs(seed=3).train  # other patterns: nothing learned here helps there
    return splits._replace(test=splits.test if test else None, also_test={"elsewhere": other})


def data(**options: object) -> NoisyLabelDataModule:
    module = NoisyLabelDataModule(
        functools.partial(source, **options.pop("source", {})),  # type: ignore[arg-type,call-overload]
        INFO,
        num_meta=40,
        batch_size=30,
        **options,  # type: ignore[arg-type]
    )
    module.setup()
    return module


@pytest.fixture(scope="module")
def trained() -> tuple[Trainer, Supervised]:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    model = Supervised(network, 4, functools.partial(torch.optim.SGD, lr=0.1))
    trainer = Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, datamodule=data(num_val=40))
    return trainer, model


def test_every_test_set_is_measured(trained: tuple[Trainer, Supervised], tmp_path: Path) -> None:
    trainer, model = trained
    half = one_hot(source().test.labels, 4) * 0.9 + 0.025  # type: ignore[union-attr]
    np.save(tmp_path / "people.npy", half.numpy())
    module = data(test_soft_labels=str(tmp_path / "people.npy"))
    human = soft_test_labels(module)
    assert human is not None
    torch.testing.assert_close(human, half.double())
    found = accuracy_on_test(trainer, model, module)
    found |= further_metrics(model, module, torch.device("cpu"), human=human)

    def logits(part: str) -> torch.Tensor:
        images = module.normalize(source().parts()[part].fetch(torch.arange(200)))
        return model.network.eval()(images).detach()

    right = (logits("test").argmax(dim=1) == source().test.labels).double().mean()  # type: ignore[union-attr]
    assert found["test/accuracy"] == pytest.approx(float(right), abs=1e-6)
    assert found["test/accuracy"] > 0.9
    assert found["test_elsewhere/accuracy"] < 0.6
    log_p = logits("test").double().log_softmax(dim=1)
    cross = -(half * log_p).sum(dim=1).mean()
    assert found["test/human_cross_entropy"] == pytest.approx(float(cross), abs=1e-5)
    entropy = -(half * half.log()).sum(dim=1).mean()
    assert found["test/human_kl"] == pytest.approx(float(cross - entropy), abs=1e-5)
    assert len(found) == 4


def test_people_s_labels_follow_the_images_that_are_left_to_test_on(tmp_path: Path) -> None:
    test = source().test
    assert test is not None
    people = torch.rand(200, 4, generator=torch.Generator().manual_seed(0)) * 0.1
    people += one_hot(test.labels, 4)
    np.save(tmp_path / "people.npy", (people / people.sum(dim=1, keepdim=True)).numpy())
    module = data(meta_from="test", test_soft_labels=str(tmp_path / "people.npy"))
    human = soft_test_labels(module)
    assert human is not None
    assert module.parts.test is not None
    assert torch.equal(human.argmax(dim=1), module.parts.test.labels)
    assert len(human) == 160


def test_without_a_test_set(trained: tuple[Trainer, Supervised], tmp_path: Path) -> None:
    trainer, model = trained
    module = data(source={"test": False})
    assert accuracy_on_test(trainer, model, module) == {}
    human = soft_test_labels(module)
    found = further_metrics(model, module, torch.device("cpu"), human=human)
    assert set(found) == {"test_elsewhere/accuracy"}
    module = data(source={"test": False}, test_soft_labels=str(tmp_path / "people.npy"))
    with pytest.raises(ValueError, match="needs a test set"):
        soft_test_labels(module)
    with pytest.raises(FileNotFoundError, match="no soft test labels at"):
        soft_test_labels(data(test_soft_labels=str(tmp_path / "people.npy")))
