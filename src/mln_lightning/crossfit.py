"""Two networks, trained on the clean labels of one half of a data set each, score the other's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from hydra.utils import instantiate
from lightning.pytorch import Callback, Trainer
from omegaconf import DictConfig
from torch import Tensor

from mln_lightning.data import NoisyLabelDataModule, Splits, stratified_split
from mln_lightning.data.parts import whole
from mln_lightning.data.truth import clean_labels
from mln_lightning.evaluation import logits_of
from mln_lightning.files import replacing
from mln_lightning.job import quiet
from mln_lightning.models import Supervised
from mln_lightning.noise import ClassConditionalNoise, symmetric
from mln_lightning.seeding import generator

_CALLBACKS = ("reseed", "progress")  # those of a run that write no files
_FOLDS = 21  # stream of the data seed, apart from those of noise and splits


def write_scores(cfg: DictConfig, path: Path) -> float:
    """Score every training image by a network that has not seen it.

    The file holds ``scores`` ``(N, C)`` float64 log-probabilities in the order of the training
    set, ``labels`` ``(N,)`` its clean labels, ``classes`` the names of the columns, and
    ``accuracy``.

    Args:
        cfg: composed with ``model=cross_entropy`` and ``noise=none``.
        path: the ``.npz`` file to write; its folder is made.

    Returns:
        the accuracy: the fraction of images whose largest score is that of their class.

    Raises:
        ValueError: the clean labels are not all known, or a class has a single image.
        FileNotFoundError: a file of the data set is missing.
        OSError: the file could not be written.
    """
    quiet()
    # Copies between the parts matter to nobody here, and take time to find.
    data: NoisyLabelDataModule = instantiate(cfg.dataset, noise=None, duplicates="ignore")
    data.setup("fit")
    info = data.info
    labels = clean_labels(data.parts.train.source.images, name=info.name, purpose="A teacher")
    sizes = torch.bincount(labels, minlength=info.num_classes)
    if int(sizes.min()) < 2:
        raise ValueError(
            f"A teacher needs at least 2 training images of each class, and class "
            f"{int(sizes.argmin())} of {info.name} has {int(sizes.min())}."
        )
    draws = generator(cfg.data_seed, _FOLDS)
    halves = stratified_split(labels, len(labels) // 2, generator=draws, every_class=True)
    scores = torch.empty(len(labels), info.num_classes, dtype=torch.float64)
    for number, (learnt, scored) in enumerate((halves, halves[::-1]), start=1):
        print(f"network {number} of 2 learns from {len(learnt):,} images", flush=True)
        scores[scored] = _scores(cfg, data, learnt, scored)
    accuracy = float((scores.argmax(dim=1) == labels).double().mean())
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            scores=scores.numpy().astype("<f8"),
            labels=labels.numpy().astype("<i8"),
            classes=np.array(info.classes, dtype=np.str_),
            accuracy=np.array(accuracy, dtype="<f8"),
        )
    return accuracy


def _scores(cfg: DictConfig, data: NoisyLabelDataModule, learnt: Tensor, scored: Tensor) -> Tensor:
    """``(n, C)`` float64 log-probabilities of the ``(n,)`` rows ``scored``."""
    images = data.parts.train.source.images
    half = images.select(learnt)
    fold = NoisyLabelDataModule(
        lambda: Splits(train=half, meta=half),  # every learner gets a meta set; this one ignores it
        replace(data.info, num_train=None),
        ClassConditionalNoise(symmetric(data.info.num_classes, 0.0)),  # the clean labels
        batch_size=min(data.batch_size, len(half)),
        meta_batch_size=1,
        augment=data.transfer.augment,
        num_workers=data.num_workers,
        seed=data.seed,
        data_seed=data.data_seed,
    )
    torch.manual_seed(cfg.seed)
    model: Supervised = instantiate(cfg.model)
    names = [name for name in _CALLBACKS if name in cfg.callbacks]
    callbacks: list[Callback] = [instantiate(cfg.callbacks[name]) for name in names]
    trainer: Trainer = instantiate(
        cfg.trainer,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing="progress" in names,  # Lightning takes our bar for a checkpoint
    )
    trainer.fit(model, datamodule=fold)
    model.check_finite()
    batches = fold.in_order(whole(images.select(scored)))
    logits, _ = logits_of(model, fold, batches, trainer.strategy.root_device)
    return logits.double().log_softmax(dim=1)
