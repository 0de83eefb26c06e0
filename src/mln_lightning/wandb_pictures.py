"""The pictures of a run, sent to Weights & Biases."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from lightning.pytorch.loggers import WandbLogger

from mln_lightning.batch import UNKNOWN
from mln_lightning.data import NoisyLabelDataModule
from mln_lightning.export import CorrectedLabels
from mln_lightning.pictures import rgb

_MOST = 50
_PICTURES = ("noise", "moved", "confusion")


@contextmanager
def tables_in(folder: Path) -> Iterator[None]:
    """Let W&B keep the files of tables in ``folder`` until they are sent, not in the user's home.

    ``WANDB_DATA_DIR`` is obeyed where the user has set it.
    """
    if "WANDB_DATA_DIR" in os.environ:
        yield
        return
    os.environ["WANDB_DATA_DIR"] = str(folder.absolute())
    try:
        yield
    finally:
        del os.environ["WANDB_DATA_DIR"]


def log_pictures(
    logger: WandbLogger, run_dir: Path, labels: CorrectedLabels, data: NoisyLabelDataModule
) -> None:
    """Log the run's pictures, and a table of the images whose label moved most.

    Args:
        logger: of the run, not finished yet.
        run_dir: holds the pictures.
        labels: of the training part.
        data: holds its images.
    """
    import wandb

    for name in _PICTURES:
        path = run_dir / f"{name}.png"
        if path.exists():  # no confusions without a test set
            logger.log_image(f"pictures/{name}", [str(path)])
    names = data.info.class_names
    images = data.parts.train.source.images
    rows = []
    for label in labels.moved(_MOST):
        pixels = rgb(images.fetch(torch.tensor([label.row]))[0])
        truth = "" if label.truth == UNKNOWN else names[label.truth]
        before, after = names[label.observed], names[label.corrected]
        rows.append(
            [images.name(label.row), wandb.Image(pixels), before, after, label.confidence, truth]
        )
    columns = ["sample", "image", "observed", "corrected", "confidence", "truth"]
    logger.log_table("moved", columns=columns, data=rows)
