"""Which epoch is selected."""

from __future__ import annotations

from pathlib import Path

import pytest
from lightning.pytorch import Trainer

from mln_lightning.callbacks import Checkpoint
from mln_lightning.models import MetaLabelNet
from tests.models.test_base import ADAM, SGD, batches, network


class WorseAndWorse(MetaLabelNet):
    """Its validation accuracy is 1 in the first epoch, and less in each that follows."""

    def on_train_epoch_end(self) -> None:
        super().on_train_epoch_end()
        self.log("val/accuracy", 1 - 0.1 * self.current_epoch)


@pytest.mark.parametrize(("warmup", "selected"), [(0, 0), (2, 2), (3, 3), (4, 0), (9, 0)])
def test_warm_up_epochs_do_not_compete(tmp_path: Path, warmup: int, selected: int) -> None:
    checkpoint = Checkpoint()
    trainer = Trainer(
        max_epochs=4,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        callbacks=[checkpoint],
    )
    trainer.fit(WorseAndWorse(network(), 3, SGD, ADAM, warmup_epochs=warmup), batches())
    assert checkpoint.best_epoch == selected
