"""When soft labels are said to collapse, and when not."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hydra.utils import instantiate
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.nn.functional import one_hot

from mln_lightning.batch import UNKNOWN, Batch
from mln_lightning.callbacks import CollapseWarning, Reseed
from mln_lightning.config import compose

C = 10
N = 2000


class Story:
    """Epochs that a callback is told of; no training."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.callback = CollapseWarning(C)
        self.capsys = capsys
        self.epoch = 0

    def tell(self, observed: Tensor, predicted: Tensor, soft: Tensor | None = None) -> str:
        """One epoch in two batches, given as hard classes; returns what was printed."""
        self.half(observed, predicted, soft, 0)
        self.half(observed, predicted, soft, 1)
        trainer = SimpleNamespace(current_epoch=self.epoch, is_global_zero=True)
        self.callback.on_train_epoch_end(trainer, LightningModule())
        self.epoch += 1
        return " ".join(self.capsys.readouterr().out.split())

    def half(self, observed: Tensor, predicted: Tensor, soft: Tensor | None, part: int) -> None:
        rows = slice(part * N // 2, (part + 1) * N // 2)
        nothing = torch.zeros(N // 2)
        output = {"logits": one_hot(predicted[rows], C).float()}
        if soft is not None:
            output["soft_labels"] = (one_hot(soft[rows], C) + 0.1) / 2
        batch = {"train": Batch(nothing, observed[rows], nothing, nothing)}
        self.callback.on_train_batch_end(None, None, output, batch, part)  # type: ignore[arg-type]


@pytest.fixture
def story(capsys: pytest.CaptureFixture[str]) -> Story:
    return Story(capsys)


def symmetric(clean: Tensor, rate: float) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    other = (clean + torch.randint(1, C, clean.shape, generator=generator)) % C
    return torch.where(torch.rand(clean.shape, generator=generator) < rate, other, clean)


BALANCED = torch.arange(N) % C
# The rarest class has 0.2 % of the samples.
IMBALANCED = torch.arange(C).repeat_interleave(
    torch.tensor([900, 500, 250, 150, 80, 50, 30, 20, 16, 4])
)


@pytest.mark.parametrize("rate", [0.0, 0.4, 0.6])
@pytest.mark.parametrize("clean", [BALANCED, IMBALANCED], ids=["balanced", "imbalanced"])
def test_silent_where_soft_labels_are_right(story: Story, clean: Tensor, rate: float) -> None:
    """Of a rare class symmetric noise shows many times what there is."""
    observed = symmetric(clean, rate)
    printed = story.tell(observed, clean)
    for _ in range(6):
        printed += story.tell(observed, clean, clean)
    assert printed == ""


def test_silent_where_the_rarest_class_was_never_learned(story: Story) -> None:
    observed = symmetric(IMBALANCED, 0.4)
    common = IMBALANCED.clamp(max=7)
    printed = story.tell(observed, common)
    assert "".join(story.tell(observed, common, common) for _ in range(6)) + printed == ""


def test_says_once_which_classes_are_lost_in_the_third_epoch(story: Story) -> None:
    observed = symmetric(BALANCED, 0.4)
    lost = torch.where((BALANCED == 3) | (BALANCED == 7), 1, BALANCED)
    assert story.tell(observed, BALANCED) == ""
    assert story.tell(observed, BALANCED, lost) == ""
    assert story.tell(observed, BALANCED, lost) == ""
    said = story.tell(observed, BALANCED, lost)
    assert said.startswith(
        "Collapse in epoch 4: soft labels hardly name 2 of 10 classes any more (3, 7). What helps: "
    )
    assert "a lower model.optimizer.lr, more model.warmup_epochs." in said
    assert story.tell(observed, BALANCED, lost) == ""


def test_an_epoch_of_recovery_starts_the_count_anew(story: Story) -> None:
    lost = BALANCED.clamp(max=8)
    for soft in (lost, lost, BALANCED, lost, lost):
        assert story.tell(BALANCED, BALANCED, soft) == ""
    assert "1 of 10 classes any more (9)" in story.tell(BALANCED, BALANCED, lost)


def test_labels_that_are_missing_expect_no_class(story: Story) -> None:
    unknown = torch.full_like(BALANCED, UNKNOWN)
    one = torch.zeros_like(BALANCED)
    assert "".join(story.tell(unknown, BALANCED, one) for _ in range(4)) == ""


def test_goes_on_after_a_checkpoint_in_mid_epoch(story: Story) -> None:
    lost = BALANCED.clamp(max=8)
    story.tell(BALANCED, BALANCED)
    story.tell(BALANCED, BALANCED, lost)
    story.tell(BALANCED, BALANCED, lost)
    # Half an epoch in which no class is lost; what is lost in the other half is too little.
    story.half(BALANCED, BALANCED, BALANCED, 0)
    saved = story.callback.state_dict()
    story.callback = CollapseWarning(C)
    story.callback.load_state_dict(saved)
    story.half(BALANCED, BALANCED, lost, 1)
    trainer = SimpleNamespace(current_epoch=3, is_global_zero=True)
    story.callback.on_train_epoch_end(trainer, LightningModule())
    assert story.callback.epochs_lost.tolist() == [0] * C
    for _ in range(3):
        story.tell(BALANCED, BALANCED, lost)
    assert story.callback.warned
    again = CollapseWarning(C)
    again.load_state_dict(story.callback.state_dict())
    story.callback = again
    assert "".join(story.tell(BALANCED, BALANCED, lost) for _ in range(4)) == ""


def fitted(folder: Path, epochs: int, *overrides: str) -> CollapseWarning:
    cfg = compose(["dataset=blobs", "noise=sym", "rate=0.3", "model=metalabelnet", *overrides])
    torch.manual_seed(0)
    data = instantiate(cfg.dataset, _partial_=True)(noise=instantiate(cfg.noise))
    callback = CollapseWarning(4)
    trainer = Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=folder,
        callbacks=[Reseed(0), callback],
    )
    trainer.fit(instantiate(cfg.model), datamodule=data)
    return callback


def test_a_run_that_collapses_says_so_and_what_helps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A generator that starts at random, and a network that follows it at full speed."""
    fitted(
        tmp_path,
        4,
        "model.warmup_epochs=1",
        "model.generator_start=random",
        "model.meta_weight=0",
        "model.optimizer.lr=0.3",
        "model.scheduler.gamma=1.0",
    )
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    said = " ".join(lines)
    assert "Collapse in epoch 4: soft labels hardly name 3 of 4 classes any more" in said
    assert "What helps: model.generator_start=head, model.entropy_weight=0" in said


def test_a_run_that_learns_says_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fitted(tmp_path, 7, "model.warmup_epochs=3")
    assert capsys.readouterr().out == ""
