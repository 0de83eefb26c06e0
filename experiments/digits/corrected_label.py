"""Which label should be exported? Candidates compared on finished training, against the truth.

python experiments/digits/corrected_label.py   (10 runs, about 5 minutes) writes corrected_label.md
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev

import torch
from hydra.utils import instantiate
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from mln_lightning.callbacks import Reseed
from mln_lightning.config import compose
from mln_lightning.job import quiet
from mln_lightning.models import MetaLabelNet


class Candidates(Callback):
    """Probabilities for every training image: at the end, and averaged over the last epochs.

    Args:
        images: normalised training images, in order.
        averaged: number of last epochs.
    """

    def __init__(self, images: Tensor, averaged: int = 16) -> None:
        self.images = images
        self.averaged = averaged
        self.sums: dict[str, Tensor] = {}
        self.last: dict[str, Tensor] = {}

    @torch.no_grad()
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, MetaLabelNet)
        assert trainer.max_epochs is not None
        if trainer.current_epoch < trainer.max_epochs - self.averaged:
            return
        pl_module.network.eval()
        found = {
            "label generator": pl_module.soft_labels(self.images),
            "classifier": pl_module(self.images).softmax(dim=1),
        }
        pl_module.network.train()
        for name, probabilities in found.items():
            self.sums[name] = self.sums.get(name, 0) + probabilities
        self.last = found

    def all(self) -> dict[str, Tensor]:
        generator, classifier = self.last["label generator"], self.last["classifier"]
        return {
            "classifier, last epoch": classifier,
            "label generator (soft label), last epoch": generator,
            "both, mean of probabilities": generator + classifier,
            "both, product of probabilities": generator * classifier,
            f"classifier, mean of {self.averaged} epochs": self.sums["classifier"],
            f"label generator, mean of {self.averaged} epochs": self.sums["label generator"],
        }


def accuracies(noise: str, seed: int) -> dict[str, float]:
    """Percent of training labels right, by candidate."""
    cfg = compose([f"noise={noise}", "rate=0.4", f"seed={seed}", f"data_seed={seed}"])
    torch.manual_seed(seed)
    data = instantiate(cfg.dataset, _partial_=True)(noise=instantiate(cfg.noise))
    data.setup("fit")
    model = instantiate(cfg.model)
    batches = list(data.in_order(data.parts.train))
    rows = torch.cat([batch.index for batch in batches])
    candidates = Candidates(data.normalize(torch.cat([batch.images for batch in batches])))
    with tempfile.TemporaryDirectory() as folder:
        trainer = instantiate(
            cfg.trainer,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            default_root_dir=folder,
            callbacks=[Reseed(seed), candidates],
        )
        trainer.fit(model, datamodule=data)
    clean = data.clean[rows]
    observed = {"observed": 100 * float((data.labels[rows] == clean).float().mean())}
    return observed | {
        name: 100 * float((probabilities.argmax(dim=1) == clean).float().mean())
        for name, probabilities in candidates.all().items()
    }


def main() -> None:
    quiet()
    cells: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for noise in ("asym", "sym"):
        for seed in range(5):
            for name, value in accuracies(noise, seed).items():
                cells[name][noise].append(value)
    table = "| training labels right, % | asym 0.4 | sym 0.4 |\n| --- | ---: | ---: |\n"
    for name, cell in cells.items():
        values = (f"{mean(cell[n]):.1f} ± {stdev(cell[n]):.1f}" for n in ("asym", "sym"))
        table += f"| {name} | {' | '.join(values)} |\n"
    Path(__file__).with_suffix(".md").write_text(table)
    print(table)


if __name__ == "__main__":
    main()
