"""float16: steps that overflow leave no trace, and are counted."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor

from mln_lightning.callbacks import History, Reseed
from mln_lightning.config import compose
from mln_lightning.models import NoisyLabelModule
from mln_lightning.models.loss_scale import GradientOverflowError

MODERATE, HUGE = 2.0**12, 2.0**60
SLOW = [
    pytest.param(method, marks=pytest.mark.slow)
    for method in ("emlc", "l2r", "mlc", "mlnt", "mslc", "mslg", "mw_net", "sop")
]


class Watch(Callback):
    """Everything a step may change: before the first step, and at the end."""

    def __init__(self) -> None:
        self.before: dict[str, Tensor] = {}
        self.losses: list[float] = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        self.before = self.before or state(pl_module)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        self.losses += [float(outputs["loss"])] if "loss" in outputs else []


def state(model: NoisyLabelModule) -> dict[str, Tensor]:
    found = {k: v.clone() for k, v in model.state_dict().items() if "epoch_means" not in k}
    for number, optimizer in enumerate(model.trainer.optimizers):
        for place, entries in optimizer.state_dict()["state"].items():
            for name, value in entries.items():
                found[f"optimizer{number}.{place}.{name}"] = torch.as_tensor(value).clone()
    return found


def changed(watch: Watch, model: NoisyLabelModule) -> list[str]:
    after = state(model)
    return [
        name
        for name in after
        if name not in watch.before or not torch.equal(after[name], watch.before[name])
    ]


def built(method: str, *overrides: str) -> tuple[NoisyLabelModule, object]:
    cfg = compose(
        [
            *("dataset=blobs", f"model={method}", "noise=sym", "rate=0.3"),
            *("dataset.batch_size=64", "dataset.meta_batch_size=9", "model.network.width=8"),
            *overrides,
        ]
    )
    for key in cfg.model:
        if key.endswith("_epochs") and cfg.model[key] and key != "relabel_epochs":
            cfg.model[key] = 0
    torch.manual_seed(0)
    model: NoisyLabelModule = instantiate(cfg.model)
    return model, instantiate(cfg.dataset, _partial_=True)(noise=instantiate(cfg.noise))


def fit(
    model: NoisyLabelModule, data: object, folder: Path, scale: float, steps: int = 4
) -> tuple[Watch, History, Trainer]:
    watch, history = Watch(), History()
    scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    trainer = Trainer(
        max_epochs=1,
        limit_train_batches=steps,
        limit_val_batches=0,
        accelerator="cpu",
        plugins=[MixedPrecision("16-mixed", "cpu", scaler)],  # Lightning offers it on a GPU only
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=folder,
        callbacks=[Reseed(0), watch, history],
    )
    trainer.fit(model, datamodule=data)
    return watch, history, trainer


def scale_of(trainer: Trainer) -> float:
    assert isinstance(trainer.precision_plugin, MixedPrecision)
    assert trainer.precision_plugin.scaler is not None
    return trainer.precision_plugin.scaler.get_scale()


@pytest.mark.parametrize("method", ["metalabelnet", "cross_entropy", *SLOW])
def test_trains(method: str, tmp_path: Path) -> None:
    model, data = built(method)
    watch, history, trainer = fit(model, data, tmp_path, MODERATE)
    assert trainer.global_step == 4
    assert len(watch.losses) == 4
    assert history.rows[0]["train/skipped_steps"] == 0
    assert scale_of(trainer) == MODERATE
    assert any(name.startswith("network") for name in changed(watch, model))
    single, same_data = built(method)
    Trainer(
        max_epochs=1,
        limit_train_batches=4,
        limit_val_batches=0,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[Reseed(0), exact := Watch()],
    ).fit(single, datamodule=same_data)
    # Later ones too are within 10 %, as they are after any other change of 1e-4 in the weights.
    assert watch.losses[:2] == pytest.approx(exact.losses[:2], rel=0.05)


# The schedule's step at the end of an epoch in which the optimiser made none.
@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
@pytest.mark.parametrize("method", ["metalabelnet", "pencil", *SLOW])
def test_an_overflowing_step_leaves_no_trace(method: str, tmp_path: Path) -> None:
    start = ["model.generator_start=random"] if method in ("metalabelnet", "emlc") else []
    model, data = built(method, *start)
    watch, history, trainer = fit(model, data, tmp_path, HUGE)
    left = [name for name in changed(watch, model) if "neighbour" not in name]  # found before
    assert left == ["teaching"] * (method == "mlnt")
    assert watch.losses == []
    assert trainer.global_step == 4, "the samplers know by it where they are"
    assert history.rows[0]["train/skipped_steps"] == 4
    assert scale_of(trainer) == HUGE / 2**4
    assert all(parameter.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("method", ["metalabelnet", "mslg"])
def test_an_overflow_of_the_last_gradient_takes_back_what_went_before(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = ["model.generator_start=random"] if method == "metalabelnet" else []
    model, data = built(method, *start)
    moved = []

    def descend(loss: Tensor) -> None:
        moved.append(changed(watches[0], model))
        raise GradientOverflowError

    watches: list[Watch] = []
    monkeypatch.setattr(Watch, "__init__", _remembering(watches, Watch.__init__))
    monkeypatch.setattr(model, "descend", descend)
    watch, history, _ = fit(model, data, tmp_path, MODERATE)
    assert any(name.startswith(("generator", "table")) for name in moved[0])
    assert changed(watch, model) == []
    assert history.rows[0]["train/skipped_steps"] == 4


def _remembering(watches: list[Watch], initialise):
    def inner(self: Watch) -> None:
        initialise(self)
        watches.append(self)

    return inner


def test_what_overflows_at_any_scale_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, data = built("cross_entropy")
    descend = model.descend
    monkeypatch.setattr(model, "descend", lambda loss: descend(loss * float("nan")))
    with pytest.raises(ValueError, match="lower a learning rate, or use precision=bf16-mixed"):
        fit(model, data, tmp_path, 2.0**-9)
