"""Warm-up, stepping and the frozen encoder."""

from __future__ import annotations

import copy
import functools

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mln_lightning.batch import Batch, StepOutput, TrainBatch
from mln_lightning.callbacks import Reseed
from mln_lightning.models import Finetune, MetaLabelNet, NoisyLabelModule, Supervised
from mln_lightning.models.base import NonFiniteLossError

SGD = functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9)
ADAM = functools.partial(torch.optim.Adam, lr=0.01)


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(16, 8),
        nn.BatchNorm1d(8),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.Linear(8, 3),
    )


def batches(number: int = 4, *, bad: int | None = None) -> DataLoader[TrainBatch]:
    generator = torch.Generator().manual_seed(1)

    def batch(poison: bool) -> Batch:
        images = torch.randn(6, 1, 4, 4, generator=generator)
        if poison:
            images[0] = torch.nan
        labels = torch.randint(3, (6,), generator=generator)
        return Batch(images, labels, labels, torch.arange(6))

    made = [TrainBatch(train=batch(i == bad), meta=batch(False)) for i in range(number)]
    return DataLoader(made, batch_size=None)  # type: ignore[arg-type]


def trainer(epochs: int, *callbacks: Callback) -> Trainer:
    return Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
    )


class Watch(Callback):
    """Keeps what happens at every step."""

    def __init__(self) -> None:
        self.outputs: list[StepOutput] = []
        self.encoders: list[dict[str, Tensor]] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: StepOutput, *_: object
    ) -> None:
        self.outputs.append(outputs)
        if isinstance(pl_module, MetaLabelNet):
            assert not pl_module.encoder.training
            self.encoders.append(copy.deepcopy(pl_module.encoder.state_dict()))


@pytest.mark.parametrize("warmup", [0, 1, 2, 3])
def test_warmup_lasts_exactly_the_epochs_asked_for(warmup: int) -> None:
    watch = Watch()
    model = MetaLabelNet(network(), 3, SGD, ADAM, warmup_epochs=warmup)
    fitted = trainer(3, watch)
    fitted.fit(model, batches())
    with_soft_labels = ["soft_labels" in output for output in watch.outputs]
    assert with_soft_labels == [False] * 4 * warmup + [True] * 4 * (3 - warmup)
    assert fitted.global_step == 12


def test_encoder_is_the_warmed_up_network_and_never_changes() -> None:
    watch = Watch()
    model = MetaLabelNet(network(), 3, SGD, ADAM, warmup_epochs=1)
    trainer(4, watch, Reseed(0)).fit(model, batches())
    alone = Supervised(network(), 3, SGD)
    trainer(1, Reseed(0)).fit(alone, batches())
    first = watch.encoders[4]  # after the first step behind the warm-up
    for name, value in alone.network.state_dict().items():
        if "num_batches" in name:
            continue
        torch.testing.assert_close(first[name], value, rtol=0, atol=0, msg=name)
    for later in watch.encoders[5:]:
        assert all(torch.equal(first[name], later[name]) for name in first)
    assert not torch.equal(model.network[1].weight, first["1.weight"])


def test_generator_starts_from_the_warmed_up_head_or_at_random() -> None:
    for start in ("head", "random"):
        model = MetaLabelNet(network(), 3, SGD, ADAM, generator_start=start)
        before = model.generator.linear.weight.clone()
        model.on_warmup_end()
        weight = model.generator.linear.weight
        expected = model.network[-1].weight if start == "head" else before
        assert torch.equal(weight, expected)


def test_finetune_ignores_the_noisy_labels_after_warmup() -> None:
    def fitted(flip: bool) -> NoisyLabelModule:
        loader = batches()
        if flip:
            for batch in loader.dataset:
                batch["train"] = batch["train"]._replace(labels=2 - batch["train"].labels)
        model = Finetune(network(), 3, SGD, warmup_epochs=0)
        torch.manual_seed(0)
        trainer(2).fit(model, loader)
        return model

    left, right = fitted(False).state_dict(), fitted(True).state_dict()
    assert all(torch.equal(left[name], right[name]) for name in left if "epoch" not in name)


@pytest.mark.parametrize("bad", [0, 2])
def test_a_loss_that_is_not_finite_is_named(bad: int) -> None:
    model = Supervised(network(), 3, SGD)
    trainer(1).fit(model, batches(bad=bad))
    with pytest.raises(NonFiniteLossError, match=rf"step {bad + 1} \(epoch 1, batch {bad + 1}\)"):
        model.check_finite()


def test_schedule_steps_once_per_epoch() -> None:
    schedule = functools.partial(torch.optim.lr_scheduler.MultiStepLR, milestones=[2], gamma=0.1)
    model = Supervised(network(), 3, SGD, scheduler=schedule)
    rates: list[float] = []

    class Rates(Callback):
        def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    trainer(3, Rates()).fit(model, batches())
    assert rates == pytest.approx([0.05] * 8 + [0.005] * 4)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"warmup_epochs": -1}, "warmup_epochs must be 0 or more, got -1"),
        ({"virtual_lr": -0.5}, "virtual_lr must be 0 or more, or 'current', got -0.5"),
        ({"entropy_weight": -1.0}, "entropy_weight must be 0 or more, got -1.0"),
        ({"generator_start": "zero"}, "'head' or 'random', got 'zero'"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        MetaLabelNet(network(), 3, SGD, ADAM, **arguments)  # type: ignore[arg-type]
