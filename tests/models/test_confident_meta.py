"""MetaLabelNet without clean labels: who becomes the meta set, and that nobody else does."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from hydra.utils import instantiate
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.nn.functional import cross_entropy

from mln_lightning.batch import UNKNOWN
from mln_lightning.callbacks import LabelQualityCurve, Reseed
from mln_lightning.config import compose
from mln_lightning.data import NoisyLabelDataModule
from mln_lightning.models import MetaLabelNet
from mln_lightning.models.confident_meta import ConfidentMeta
from mln_lightning.networks import evaluating
from tests.test_confident import one_by_one

NUMBER = 60


def made(number: int = NUMBER, *more: str) -> tuple[MetaLabelNet, NoisyLabelDataModule]:
    cfg = compose(
        [
            "dataset=blobs",
            "model=metalabelnet_confident",
            "noise=sym",
            "rate=0.3",
            "num_meta=4",
            f"model.num_confident={number}",
            "model.warmup_epochs=1",
            "model.optimizer.lr=0.01",
            *more,
        ]
    )
    torch.manual_seed(0)
    data = instantiate(cfg.dataset, _partial_=True)(noise=instantiate(cfg.noise))
    return instantiate(cfg.model), data


def fit(model: MetaLabelNet, data: NoisyLabelDataModule, *callbacks: Callback) -> Trainer:
    trainer = Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Reseed(0), LabelQualityCurve(4), *callbacks],
    )
    trainer.fit(model, datamodule=data)
    model.check_finite()
    return trainer


class Poison(Callback):
    """Makes the clean batch useless, and every true class wrong."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        batch["meta"].images.fill_(torch.nan)
        batch["meta"].labels.fill_(0)
        for part in batch.values():
            part.clean.fill_(0)


class Watch(Callback):
    """The losses of the training part when the warm-up ends, and the batches of every meta step."""

    def __init__(self) -> None:
        self.losses: Tensor | None = None
        self.trained: list[Tensor] = []
        self.meta: list[tuple[Tensor, Tensor]] = []

    def on_train_epoch_start(self, trainer: Trainer, model: LightningModule) -> None:
        if trainer.current_epoch == 0:
            take = model.meta_step

            def watched(images, head_loss, meta, **options):
                self.meta.append((meta.images, meta.labels, meta.index))
                return take(images, head_loss, meta, **options)

            model.meta_step = watched
            return
        part = model.data.parts.train
        with evaluating(model):
            images = model.data.normalize(part.source.images.fetch(part.index))
            self.losses = cross_entropy(model.network(images), part.labels, reduction="none")

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        if "meta_loss" in outputs:
            assert len(outputs["soft_labels"]) == int(outputs["rows"].sum())
            self.trained.append(batch["train"].index[outputs["rows"]])


class Fitted(NamedTuple):
    model: MetaLabelNet
    data: NoisyLabelDataModule
    watch: Watch


@pytest.fixture(scope="module")
def fitted() -> Fitted:
    done = Fitted(*made(), Watch())
    fit(*done)
    return done


def test_no_meta_image_and_no_trusted_label_is_used(fitted: Fitted) -> None:
    model, data = made()
    fit(model, data, Poison())
    for name, value in fitted.model.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name


def test_the_lowest_losses_of_each_class_change_sides(fitted: Fitted) -> None:
    model, data, watch = fitted
    part = data.parts.train
    expected = part.index[one_by_one(watch.losses.tolist(), part.labels.tolist(), NUMBER)]
    rows = model.confident.rows
    assert torch.equal(rows, expected)
    assert data.labels[rows].bincount().tolist() == [NUMBER // 4] * 4

    trained = torch.cat(watch.trained)
    assert len(trained) > 200
    assert not torch.isin(trained, rows).any()
    for images, labels, index in watch.meta:
        assert len(index) == len(index.unique()) == 32  # a training batch
        assert torch.isin(index, rows).all()
        assert torch.equal(labels, data.labels[index])
        assert torch.equal(images, data.normalize(part.source.images.fetch(index)))
    assert len(torch.cat([index for _, _, index in watch.meta]).unique()) == NUMBER
    first, second = watch.meta[0][2], watch.meta[1][2]
    assert not torch.equal(first, second)


def test_unlabelled_samples_are_trained_on_but_never_chosen() -> None:
    model, data = made(NUMBER, "dataset.num_unlabelled=100")
    watch = Watch()
    watch.on_train_epoch_start = lambda trainer, module: None  # labels are missing for its losses
    fit(model, data, watch)
    assert (data.labels[model.confident.rows] != UNKNOWN).all()
    assert (data.labels[torch.cat(watch.trained)] == UNKNOWN).any()


def test_a_batch_of_chosen_samples_alone_is_a_step_without_learning() -> None:
    model, data = made()

    class ChooseAnew(Callback):
        """All samples of the second batch after warm-up."""

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
            self.alone = trainer.current_epoch == 1 and batch_idx == 1
            if self.alone:
                rows = model.confident.rows
                rows[: len(batch["train"].index)] = batch["train"].index
                self.before = [p.detach().clone() for p in model.parameters()]

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
            if self.alone:
                assert outputs == {}
                after = list(model.parameters())
                assert all(torch.equal(a, b) for a, b in zip(self.before, after, strict=True))
                trainer.should_stop = True

    trainer = fit(model, data, ChooseAnew())
    assert trainer.global_step == 13, "an epoch of 11 steps, one step, and this one"


def test_too_many_are_refused_before_the_warm_up() -> None:
    model, data = made(400)
    with pytest.raises(ValueError, match=r"num_confident=400 leaves nothing .* samples, 356"):
        fit(model, data)
    with pytest.raises(ValueError, match="num_confident must be 1 or more, or None, got 0"):
        ConfidentMeta(0)
