"""What holds for every learning method: each file in conf/model is found and put to the test."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from hydra.utils import instantiate
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from mln_lightning.batch import UNKNOWN
from mln_lightning.callbacks import CollapseWarning, History, LabelQualityCurve, Reseed
from mln_lightning.config import compose, conf_dir
from mln_lightning.data.augment import Normalize, RandomCropFlip
from mln_lightning.data.strong import StrongAugment
from mln_lightning.models import NoisyLabelModule
from tests.models.waiting import Waits, waits

METHODS = sorted(path.stem for path in (conf_dir() / "model").glob("*.yaml"))
EPOCHS = 4  # of five steps; every stage of a method but its last takes one epoch
SAVED = (5, 7, 10, 12)  # steps after which a checkpoint is kept: ends of epochs, and in mid-epoch
LOOK_AT_NO_TRAINING_IMAGE = ("clean_only", "finetune", "mixup")  # mixup: at mixtures of two


def test_all_methods_were_found() -> None:
    print(f"{len(METHODS)} methods: {', '.join(METHODS)}")
    assert set(METHODS) >= {"metalabelnet", "cross_entropy", "clean_only", "finetune"}, METHODS


class HideTruth(Callback):
    """Replaces every true class by UNKNOWN before the learner sees the batch."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        for part in batch.values():
            part.clean.fill_(UNKNOWN)


class Keep(Checkpoint):
    """Checkpoints of some steps; its kind runs after all other callbacks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        if batch_idx + 1 < trainer.num_training_batches:
            self._keep(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._keep(trainer)

    def _keep(self, trainer: Trainer) -> None:
        if trainer.global_step in SAVED:
            trainer.save_checkpoint(self.folder / f"{trainer.global_step}.ckpt")


class Fit(NamedTuple):
    """What is left of a run."""

    before: dict[str, torch.Tensor]
    state: dict[str, torch.Tensor]
    steps: int
    steps_per_epoch: int
    epochs: int
    logged: dict[str, float]


def fit(
    method: str,
    folder: Path,
    *extra: Callback,
    resume: Path | None = None,
    precision: str = "32-true",
    changes: Sequence[str] = (),
) -> Fit:
    cfg = compose(
        [
            "dataset=blobs",
            f"model={method}",
            "noise=sym",
            "rate=0.3",
            "dataset.batch_size=64",
            "dataset.meta_batch_size=9",  # not the size of the training batch
            f"trainer.max_epochs={EPOCHS}",
            "model.network.width=8",
            *changes,
        ]
    )
    for key in cfg.model:  # stages are told by how long they take
        if key.endswith("_epochs") and cfg.model[key]:
            cfg.model[key] = 1
    torch.manual_seed(0)
    data = instantiate(cfg.dataset, _partial_=True)(noise=instantiate(cfg.noise))
    model: NoisyLabelModule = instantiate(cfg.model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    history = History()
    trainer = Trainer(
        max_epochs=EPOCHS,
        accelerator="cpu",
        precision=precision,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=folder,
        callbacks=[
            Reseed(0),
            LabelQualityCurve(cfg.dataset.info.num_classes),
            CollapseWarning(cfg.dataset.info.num_classes),
            history,
            *extra,
        ],
    )
    trainer.fit(model, datamodule=data, ckpt_path=resume)
    model.check_finite()
    after_warmup = history.rows[cfg.model.get("warmup_epochs", 0) :]
    logged = {name: float(value) for row in after_warmup for name, value in row.items()}
    per_epoch = len(data.train_dataloader()["train"])
    return Fit(
        before,
        model.state_dict(),
        trainer.global_step,
        per_epoch,
        trainer.current_epoch,
        logged,
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory):
    """The undisturbed run of a method, made once, with its checkpoints and what would wait."""

    @functools.cache
    def run(method: str) -> tuple[Fit, Path, set[str]]:
        folder, waiting = tmp_path_factory.mktemp(method), Waits()
        return fit(method, folder, Keep(folder), waiting), folder, waiting.found

    return run


def assert_same_bits(left: Fit, right: Fit) -> None:
    assert left.state.keys() == right.state.keys()
    different = [k for k in left.state if not torch.equal(left.state[k], right.state[k])]
    assert not different


@pytest.mark.parametrize("method", METHODS)
def test_fits_and_counts_batches(method: str, runs) -> None:
    run = runs(method)[0]
    assert run.steps == EPOCHS * run.steps_per_epoch == 20
    assert all(torch.isfinite(v.float()).all() for v in run.state.values())
    assert any(
        not torch.equal(run.before[k], run.state[k]) for k in run.before if k.startswith("network")
    )


@pytest.mark.parametrize("method", METHODS)
def test_same_seed_same_bits_and_truth_never_reaches_the_learner(
    method: str, runs, tmp_path: Path
) -> None:
    assert_same_bits(runs(method)[0], fit(method, tmp_path, HideTruth()))


# Every method resumes in mid-epoch; between epochs too, one in the tests that are always run.
IN_MID_EPOCH = [(method, SAVED[3]) for method in METHODS]
ONE_EVERYWHERE = [("metalabelnet", step) for step in SAVED[:3]]
BETWEEN_EPOCHS = [
    pytest.param(method, SAVED[2], marks=pytest.mark.slow)
    for method in METHODS
    if method != "metalabelnet"
]


@pytest.mark.parametrize(("method", "step"), IN_MID_EPOCH + ONE_EVERYWHERE + BETWEEN_EPOCHS)
def test_resumed_equals_uninterrupted(method: str, step: int, runs, tmp_path: Path) -> None:
    whole, folder, _ = runs(method)
    resumed = fit(method, tmp_path, resume=folder / f"{step}.ckpt")
    assert resumed.epochs == EPOCHS
    assert_same_bits(whole, resumed)


@pytest.mark.parametrize("method", METHODS)
def test_label_quality_is_logged(method: str, runs) -> None:
    logged = runs(method)[0].logged
    sees_noisy_images = method not in LOOK_AT_NO_TRAINING_IMAGE
    assert ("memorized/noisy" in logged) == sees_noisy_images, "nothing of the warm-up is left"
    if method == "metalabelnet":
        assert 0 <= logged["labels/accuracy"] <= 1
    assert all(0 <= logged[key] <= 1 for key in logged if key.startswith("memorized/"))


CHEAPER = ("model.meta_every=3", "model.lean_memory=true", "model.encoder_mode=folded")


def test_cheaper_steps_resume_too(tmp_path: Path) -> None:
    whole = fit("metalabelnet", tmp_path, Keep(tmp_path), changes=CHEAPER)
    for step in SAVED[2:]:
        resumed = fit("metalabelnet", tmp_path, resume=tmp_path / f"{step}.ckpt", changes=CHEAPER)
        assert_same_bits(whole, resumed)


WAITING = {
    "coteaching_plus": {"nonzero"},  # learns from as many samples as the networks disagree about
    "l2r": {"__bool__"},  # a step whose weights are all zero is not taken
    "truncated_gce": {"__bool__"},  # nor one whose samples are all pruned
    # Meta images are chosen from those on the host, and left out of the batch.
    "metalabelnet_confident": {"a mask", "cpu", "to(device)"},
}


@pytest.mark.parametrize("method", METHODS)
def test_no_step_waits_for_the_device(method: str, runs) -> None:
    assert runs(method)[2] == WAITING.get(method, set())


def test_waiting_is_noticed() -> None:
    x, found = torch.arange(3.0), set[str]()
    for wait in (
        *(x.sum().item, x.cpu, x.tolist, x.nonzero, x.unique, lambda: bool(x.sum() > 0)),
        *(lambda: x[x > 0], lambda: x.to("cpu"), lambda: torch.tensor(1.0, device="cpu")),
    ):
        with waits(found):
            x.add(1).softmax(dim=0)
            assert not found
            wait()
        assert found
        found.clear()


def test_neither_does_the_preparation_of_a_batch() -> None:
    """Augmentation and normalisation."""
    found = set[str]()
    images = torch.zeros(3, 1, 8, 8, dtype=torch.uint8)
    augment = StrongAugment(cutout=2, first=RandomCropFlip(2, mode="reflect"))
    with waits(found):
        Normalize([0.5], [0.3])(augment(images, torch.arange(3), seed=0, epoch=1))
    assert not found


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
