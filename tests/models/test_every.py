"""What holds for every learning method: each file in conf/model is found and put to the test."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from lightning.pytorch import Callback, LightningModule, Trainer

from mln_lightning.batch import UNKNOWN
from mln_lightning.callbacks import History, LabelQualityCurve, Reseed
from mln_lightning.config import compose, conf_dir
from mln_lightning.data import NoisyLabelDataModule
from mln_lightning.models import NoisyLabelModule

METHODS = sorted(path.stem for path in (conf_dir() / "model").glob("*.yaml"))
EPOCHS = 3


def test_all_methods_were_found() -> None:
    assert set(METHODS) >= {"metalabelnet", "cross_entropy", "clean_only", "finetune"}, METHODS


class HideTruth(Callback):
    """Replaces every true class by UNKNOWN before the learner sees the batch."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        for part in batch.values():
            part.clean.fill_(UNKNOWN)


class StopAfter(Callback):
    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.should_stop = trainer.current_epoch + 1 == self.epochs


def fit(
    method: str,
    folder: Path,
    *extra: Callback,
    resume: Path | None = None,
    precision: str = "32-true",
) -> tuple[NoisyLabelModule, NoisyLabelDataModule, Trainer]:
    cfg = compose(
        [
            "dataset=blobs",
            f"model={method}",
            "noise=sym",
            "rate=0.3",
            "dataset.meta_batch_size=9",  # not the size of the training batch
            f"trainer.max_epochs={EPOCHS}",
        ]
    )
    if "warmup_epochs" in cfg.model:
        cfg.model.warmup_epochs = 1
    torch.manual_seed(0)
    data = instantiate(cfg.dataset, _partial_=True)(noise=instantiate(cfg.noise))
    model = instantiate(cfg.model)
    trainer = Trainer(
        max_epochs=EPOCHS,
        accelerator="cpu",
        precision=precision,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=folder,
        callbacks=[Reseed(0), LabelQualityCurve(cfg.dataset.info.num_classes), History(), *extra],
    )
    trainer.fit(model, datamodule=data, ckpt_path=resume)
    return model, data, trainer


def assert_same_bits(left: NoisyLabelModule, right: NoisyLabelModule) -> None:
    states = left.state_dict(), right.state_dict()
    assert states[0].keys() == states[1].keys()
    different = [k for k in states[0] if not torch.equal(states[0][k], states[1][k])]
    assert not different


@pytest.mark.parametrize("method", METHODS)
def test_fits_and_counts_batches(method: str, tmp_path: Path) -> None:
    before = instantiate(compose(["dataset=blobs", f"model={method}"]).model).state_dict()
    model, data, trainer = fit(method, tmp_path)
    assert trainer.global_step == EPOCHS * len(data.train_dataloader()["train"])
    after = model.state_dict()
    assert all(torch.isfinite(v.float()).all() for v in after.values())
    assert any(not torch.equal(before[k], after[k]) for k in before if "network" in k)
    model.check_finite()


@pytest.mark.parametrize("method", METHODS)
def test_same_seed_same_bits(method: str, tmp_path: Path) -> None:
    assert_same_bits(fit(method, tmp_path)[0], fit(method, tmp_path)[0])


@pytest.mark.parametrize("method", METHODS)
def test_truth_never_reaches_the_learner(method: str, tmp_path: Path) -> None:
    assert_same_bits(fit(method, tmp_path)[0], fit(method, tmp_path, HideTruth())[0])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("epochs", [1, 2])
def test_resumed_equals_uninterrupted(method: str, epochs: int, tmp_path: Path) -> None:
    whole = fit(method, tmp_path)[0]
    _, _, trainer = fit(method, tmp_path, StopAfter(epochs))
    assert trainer.current_epoch == epochs
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    resumed, _, trainer = fit(method, tmp_path, resume=tmp_path / "half.ckpt")
    assert trainer.current_epoch == EPOCHS
    assert_same_bits(whole, resumed)


@pytest.mark.parametrize("method", METHODS)
def test_label_quality_is_logged(method: str, tmp_path: Path) -> None:
    _, _, trainer = fit(method, tmp_path)
    logged = trainer.callback_metrics
    sees_noisy_images = method not in ("clean_only", "finetune")
    assert ("memorized/noisy" in logged) == sees_noisy_images, "nothing of the warm-up is left"
    if method == "metalabelnet":
        assert 0 <= logged["labels/accuracy"] <= 1
    assert all(0 <= logged[key] <= 1 for key in logged if key.startswith("memorized/"))


class FirstMetaStep(Callback):
    """Keeps the first step's losses after warm-up."""

    def __init__(self) -> None:
        self.losses: list[torch.Tensor] = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        if not self.losses and "meta_loss" in outputs:
            self.losses = [outputs["loss"], outputs["meta_loss"]]


@pytest.mark.parametrize(
    ("precision", "dtype"), [("64-true", torch.float64), ("bf16-mixed", torch.float32)]
)
def test_other_precisions_train(precision: str, dtype: torch.dtype, tmp_path: Path) -> None:
    """Warnings are errors here, so the meta gradient's back end did not have to fall back."""
    steps = {kind: FirstMetaStep() for kind in (precision, "32-true")}
    for kind, step in steps.items():
        fit("metalabelnet", tmp_path, step, precision=kind)
    got, expected = steps[precision].losses, steps["32-true"].losses
    assert got[0].dtype == dtype, "a loss of half precision is too coarse to train on"
    assert [float(x) for x in got] == pytest.approx([float(x) for x in expected], rel=0.1)
