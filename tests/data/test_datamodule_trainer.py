"""The data module under a real trainer."""

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn

from mln_lightning.data import DatasetInfo, NoisyLabelDataModule, RandomCropFlip
from mln_lightning.datasets import blobs
from mln_lightning.noise import ClassConditionalNoise, symmetric

BLOBS = DatasetInfo("blobs", 4, (1, 8, 8), (0.5,), (0.3,), 400)
SYM = ClassConditionalNoise(symmetric(4, 0.4))


class Probe(LightningModule):
    """Notes what each step sees."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 4)
        self.seen = []

    def training_step(self, batch, batch_idx):
        train, meta = batch["train"], batch["meta"]
        self.seen.append((train.index.tolist(), meta.index.tolist(), train.images.sum().item()))
        return nn.functional.cross_entropy(self.layer(train.images.flatten(1)), train.labels)

    def validation_step(self, batch, batch_idx):
        assert batch.images.dtype == torch.float32

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(module, model, epochs, **options):
    trainer = Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(model, datamodule=module, **options)
    return trainer


@pytest.mark.filterwarnings("ignore:.*does not have many workers")  # advice of Lightning
@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # Lightning 2.6 on torch 2.15
def test_under_a_trainer(tmp_path):
    def module(**options):
        return NoisyLabelDataModule(
            blobs, BLOBS, SYM, num_meta=40, num_val=40, augment=RandomCropFlip(1), **options
        )

    whole, first, second = Probe(), Probe(), Probe()
    fit(module(), whole, 3)
    assert len(whole.seen) == 6
    fit(module(), first, 1).save_checkpoint(tmp_path / "one.ckpt")
    fit(module(), second, 3, ckpt_path=tmp_path / "one.ckpt")
    assert first.seen + second.seen == whole.seen
    with pytest.raises(ValueError, match="with other labels or another split"):
        fit(module(data_seed=1), Probe(), 3, ckpt_path=tmp_path / "one.ckpt")
