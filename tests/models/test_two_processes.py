"""Two real processes with half of every batch each equal one process with all of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hydra.utils import instantiate
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy
from omegaconf import DictConfig
from torch import Tensor, nn

from mln_lightning.callbacks import CollapseWarning, History, LabelQualityCurve, Reseed
from mln_lightning.config import compose, conf_dir
from mln_lightning.models import NoisyLabelModule
from mln_lightning.networks import SyncBatchNorm
from tests.fleet import together

METHODS = sorted(path.stem for path in (conf_dir() / "model").glob("*.yaml"))
WHOLE_BATCH = {
    *("mixup", "dividemix", "coteaching", "coteaching_plus", "joint_optimization", "mlnt"),
    "metalabelnet_confident",
}
# Without MSLC, in which rounding may turn a prediction, and so a label, into another, and without
# MLC, whose Adam divides by gradients that are hardly more than rounding (5e-5 apart).
SINGLE = ("metalabelnet", "emlc", "mslg", "mw_net", "l2r", "dmlp")
EPOCHS = 4  # of five steps
Fitted = tuple[dict[str, Tensor], list[dict[str, float]]]
SIZES = ["dataset.batch_size=15", "dataset.meta_batch_size=7"]  # neither can be halved
# Four batches of 15; then twelve samples, or one, which the second process does not get.
BATCH_NORM = ["dataset.num_train=72"]
LARGE = ["dataset.num_train=280", "dataset.batch_size=60", "dataset.meta_batch_size=31"]
NO_BATCH_NORM = [
    "dataset.num_train=61",
    "dataset.num_val=1",  # nothing to validate in the second process either
    "model.network._target_=tests.models.test_two_processes.without_batch_norm",
]


def without_batch_norm(shape: Sequence[int], num_classes: int, width: int) -> nn.Module:
    size = width * (shape[1] - 2) * (shape[2] - 2)
    return nn.Sequential(
        nn.Conv2d(shape[0], width, 3), nn.Tanh(), nn.Flatten(), nn.Linear(size, num_classes)
    )


def configured(method: str, *extra: str) -> DictConfig:
    cfg = compose(
        [
            *(
                "dataset=blobs",
                f"model={method}",
                "noise=sym",
                "rate=0.3",
                "+dataset.drop_last=false",
            ),
            *(*SIZES, "model.network.width=8", f"trainer.max_epochs={EPOCHS}", *extra),
        ]
    )
    if method == "mslg":
        cfg.model.label_lr = 4.0  # a hundredth: else rounding grows a thousandfold in an epoch
    for key in cfg.model:  # stages are told by how long they take
        if key.endswith("_epochs") and cfg.model[key]:
            cfg.model[key] = 1
    return cfg


def fit(cfg: DictConfig, processes: int, folder: Path) -> Fitted:
    """State of the module and of its optimisers at the end, and the rows of metrics."""
    torch.manual_seed(0)
    data = instantiate(cfg.dataset, _partial_=True)(noise=instantiate(cfg.noise))
    model: NoisyLabelModule = instantiate(cfg.model)
    history, classes = History(), cfg.dataset.info.num_classes
    callbacks: list[Callback] = [
        Reseed(0),
        LabelQualityCurve(classes),
        CollapseWarning(classes),
        history,
    ]
    trainer = Trainer(
        max_epochs=EPOCHS,
        accelerator="cpu",
        devices=processes,
        strategy=DDPStrategy() if processes > 1 else "auto",
        use_distributed_sampler=False,
        precision=cfg.precision,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=folder,
        callbacks=callbacks,
    )
    trainer.fit(model, datamodule=data)
    history.rows[-1] |= {
        name: float(v) for name, v in trainer.test(model, data, verbose=False)[0].items()
    }
    state = {name: value.clone() for name, value in model.state_dict().items()}
    for number, optimizer in enumerate(trainer.optimizers):
        for name, moments in optimizer.state_dict()["state"].items():
            state |= {
                f"optimizer {number}, {name}, {key}": value
                for key, value in moments.items()
                if isinstance(value, Tensor)
            }
    return state, history.rows


def fits(
    methods: Sequence[str], extra: Sequence[str], processes: int, folder: Path
) -> dict[str, Fitted]:
    return {method: fit(configured(method, *extra), processes, folder) for method in methods}


def assert_equal(
    found: Mapping[str, Tensor], expected: Mapping[str, Tensor], tolerance: float
) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        size = value.double().norm().clamp(min=1e-3)
        apart = (found[name].double() - value.double()).norm() / size
        assert apart < tolerance, f"{name}: {apart:.1e}"


def compare(methods: Sequence[str], extra: Sequence[str], precision: str, folder: Path) -> None:
    extra = [f"precision={precision}", *extra]
    ended = {}
    for processes in (2, 1):
        (place := folder / str(processes)).mkdir()
        ended[processes] = together(processes, fits, methods, extra, processes, place, folder=place)
    tolerance = 1e-10 if precision == "64-true" else 1e-5
    for method in methods:
        (found, rows), (expected, expected_rows) = ended[2][method], ended[1][method]
        if precision == "32-true":  # momenta, being sums that cancel, have fewer digits
            found, expected = (
                {name: v for name, v in state.items() if not name.startswith("optimizer")}
                for state in (found, expected)
            )
        assert_equal(found, expected, tolerance)
        assert len(rows) == EPOCHS
        for row, expected_row in zip(rows, expected_rows, strict=True):
            assert row == pytest.approx(expected_row, rel=1e-4, abs=1e-5), method


def test_labels_made_and_labels_kept(tmp_path: Path) -> None:
    compare(["metalabelnet", "mslg"], BATCH_NORM, "64-true", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [BATCH_NORM, NO_BATCH_NORM], ids=["batch_norm", "empty_share"])
def test_every_method_that_can(sizes: list[str], tmp_path: Path) -> None:
    compare([m for m in METHODS if m not in WHOLE_BATCH], sizes, "64-true", tmp_path)


@pytest.mark.slow
def test_meta_methods_in_single_precision(tmp_path: Path) -> None:
    compare(SINGLE, LARGE, "32-true", tmp_path)


@pytest.mark.parametrize("method", sorted(WHOLE_BATCH))
def test_methods_that_couple_a_batch_refuse(method: str) -> None:
    model: NoisyLabelModule = instantiate(configured(method).model)
    with pytest.raises(ValueError, match=r"cannot train on 2 processes: .* whole batch; set"):
        model.shared.start(pretend(model))


def pretend(model: NoisyLabelModule, **other: object) -> NoisyLabelModule:
    """The module in a trainer with two processes, of which there is only this one."""
    connector = SimpleNamespace(use_distributed_sampler=False)
    trainer = SimpleNamespace(
        strategy=DDPStrategy(), _accelerator_connector=connector, world_size=2
    )
    for name, value in other.items():
        setattr(trainer, name, value)
    model._trainer = trainer  # type: ignore[assignment]
    return model


def test_strategies_and_samplers_that_cannot_be_exact_are_refused() -> None:
    model: NoisyLabelModule = instantiate(configured("metalabelnet").model)
    for other, sentence in (
        ({"strategy": FSDPStrategy()}, "strategy=FSDPStrategy cannot train here: the virtual"),
        ({"strategy": DDPStrategy(find_unused_parameters=True)}, "find_unused_parameters=True"),
        (
            {"_accelerator_connector": SimpleNamespace(use_distributed_sampler=True)},
            r"Trainer\(use_distributed_sampler=False\)",
        ),
    ):
        with pytest.raises(ValueError, match=sentence):
            model.shared.start(pretend(model, **other))
    model.shared.start(pretend(model))
    hidden = set(model._ddp_params_and_buffers_to_ignore)
    seen = {name for name, _ in model.named_parameters()} - hidden
    assert seen == {f"network.{name}" for name, _ in model.network.named_parameters()}
    assert {name for name, _ in model.named_buffers()} <= hidden
    assert any(isinstance(layer, SyncBatchNorm) for layer in model.network.modules())
    assert not any(isinstance(layer, SyncBatchNorm) for layer in model.encoder.modules())
