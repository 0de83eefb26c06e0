"""DivideMix against a transcription in plain torch, on the blobs."""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from lightning.pytorch import Callback, LightningModule, Trainer
from omegaconf import DictConfig
from sklearn.mixture import GaussianMixture
from torch import Tensor, nn

from mln_lightning.batch import UNKNOWN, Batch, StepOutput, TrainBatch
from mln_lightning.callbacks import Reseed
from mln_lightning.config import compose
from mln_lightning.data import NoisyLabelDataModule, RandomCropFlip
from mln_lightning.models import DivideMix

C, LR = 4, 0.1
SGD = functools.partial(torch.optim.SGD, lr=LR)


def network(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    layers = (nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, C))
    return nn.Sequential(*layers)


@functools.cache
def configuration() -> DictConfig:
    return compose(["dataset=blobs", "noise=sym", "rate=0.3"])


def blobs(num_unlabelled: int = 0) -> NoisyLabelDataModule:
    cfg = configuration()
    made = instantiate(cfg.dataset, _partial_=True)(
        noise=instantiate(cfg.noise),
        augment=RandomCropFlip(padding=1),
        num_unlabelled=num_unlabelled,
    )
    assert isinstance(made, NoisyLabelDataModule)
    return made


class Watch(Callback):
    """Keeps, for the first step after warm-up, what went in, and the networks before and after."""

    def __init__(self) -> None:
        self.seen: dict[str, Any] = {}

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: TrainBatch, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, DivideMix)
        if pl_module.current_epoch == pl_module.warmup_epochs and batch_idx == 0:
            self.seen = {
                "batch": batch["train"],
                "before": copy.deepcopy([pl_module.network, pl_module.peer]),
            }

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: StepOutput,
        batch: TrainBatch,
        batch_idx: int,
    ) -> None:
        assert isinstance(pl_module, DivideMix)
        if self.seen and "after" not in self.seen:
            self.seen["after"] = copy.deepcopy([pl_module.network, pl_module.peer])
            self.seen["output"] = outputs
            self.seen["clean"] = pl_module.clean_probability.clone()


def watched(
    model: DivideMix,
    data: NoisyLabelDataModule,
    epochs: int,
    *,
    callbacks: Sequence[Callback] = (),
    **options: Any,
) -> dict[str, Any]:
    watch = Watch()
    trainer = Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        callbacks=[Reseed(0), watch, *callbacks],
        **options,
    )
    view = data.transfer.view
    views: list[Tensor] = []
    data.transfer.view = lambda *asked: views.append(view(*asked)) or views[-1]  # type: ignore
    trainer.fit(model, datamodule=data)
    return {**watch.seen, "view": views[0] if views else None}


def transcribed(
    seen: dict[str, Any], draws: torch.Generator, *, weight: float, tau: float, t: float, a: float
) -> tuple[Tensor, list[nn.Module], list[Tensor]]:
    """Loss, both networks after the step and their soft labels, sample by sample."""
    batch: Batch = seen["batch"]
    size, views = len(batch.labels), [batch.images, seen["view"]]
    nets = copy.deepcopy(seen["before"])
    probabilities = []
    for net in nets:
        net.eval()
        with torch.no_grad():
            probabilities.append(sum(torch.softmax(net(v), 1) for v in views) / 2)
        net.train()
    total, softs = torch.zeros((), dtype=torch.float64), []
    for me, other in ((0, 1), (1, 0)):
        clean = seen["clean"][other][batch.index].double()  # co-divide: by the other network
        soft = torch.zeros(size, C, dtype=torch.float64)
        for i in range(size):
            p = (probabilities[0][i] + probabilities[1][i]) / 2
            if clean[i] > tau:
                p = (1 - clean[i]) * probabilities[me][i]
                p[batch.labels[i]] += clean[i]
            soft[i] = p ** (1 / t) / (p ** (1 / t)).sum()
        seed = int(torch.randint(2**62, (), generator=draws))
        lam = np.random.default_rng(seed).beta(a, a)
        lam = max(lam, 1 - lam)
        order = torch.randperm(2 * size, generator=draws)
        x, y = torch.cat(views), torch.cat([soft, soft])
        x, y = lam * x + (1 - lam) * x[order], lam * y + (1 - lam) * y[order]
        q = torch.softmax(nets[me](x), 1)
        trusted = torch.cat([clean, clean]) > tau
        loss = torch.zeros((), dtype=torch.float64)
        if trusted.any():
            loss = loss - (y * q.log()).sum(1)[trusted].mean()
        if not trusted.all():
            loss = loss + weight * ((q - y) ** 2)[~trusted].mean()
        loss = loss + (0.25 * (0.25 / q.mean(0)).log()).sum()
        grads = torch.autograd.grad(loss, list(nets[me].parameters()))
        with torch.no_grad():
            for parameter, grad in zip(nets[me].parameters(), grads, strict=True):
                parameter -= LR * grad
        total = total + loss.detach()
        softs.append(soft)
    return total, nets, softs


def divided(**options: Any) -> DivideMix:
    return DivideMix(network(0), network(1), C, SGD, **options)


@pytest.mark.parametrize(
    ("threshold", "ramp_epochs", "weight", "clean"),
    [(0.5, 0, 3.0, None), (0.5, 2, 0.0, None), (0.2, 0, 3.0, 0.3), (0.5, 0, 3.0, 0.3)],
    ids=["both kinds", "start of the ramp", "all labelled", "none labelled"],
)
def test_first_step_after_warm_up_equals_the_transcription(
    threshold: float, ramp_epochs: int, weight: float, clean: float | None
) -> None:
    model = divided(
        warmup_epochs=2,
        threshold=threshold,
        temperature=0.4,
        alpha=2.0,
        lambda_u=3.0,
        ramp_epochs=ramp_epochs,
    )
    model.draws = lambda: torch.Generator().manual_seed(5)  # type: ignore[method-assign]
    if clean is not None:
        model.on_noisy_epoch = lambda: model.clean_probability.fill_(clean)  # type: ignore
    # Without a label is what is not trusted, and so must not be made trusted.
    seen = watched(model, blobs(60 if clean is None else 0), 3, precision="64-true")
    trusted = seen["clean"][:, seen["batch"].index] > threshold
    if clean is None:
        assert (trusted[0] != trusted[1]).any(), "whose division it is matters"
        assert all(0 < int(row.sum()) < len(row) for row in trusted)
        assert (seen["batch"].labels == UNKNOWN).any()
        assert "rows" not in seen["output"], "the step saw them all"
    else:
        assert (trusted == (clean > threshold)).all()
    loss, nets, softs = transcribed(
        seen, torch.Generator().manual_seed(5), weight=weight, tau=threshold, t=0.4, a=2.0
    )
    torch.testing.assert_close(seen["output"]["loss"], loss, rtol=1e-9, atol=0)
    torch.testing.assert_close(seen["output"]["soft_labels"], softs[0], rtol=1e-9, atol=1e-12)
    for got, expected in zip(seen["after"], nets, strict=True):
        for name, value in expected.state_dict().items():
            torch.testing.assert_close(
                got.state_dict()[name], value, rtol=1e-9, atol=1e-12, msg=name
            )


def test_clean_probabilities_are_those_of_each_network_in_its_row() -> None:
    data, model = blobs(num_unlabelled=20), divided(warmup_epochs=1)
    seen = watched(model, data, 2, limit_train_batches=4)
    part, losses = data.parts.train, []
    known = part.labels != UNKNOWN
    assert int((~known).sum()) == 20
    for row, net in enumerate(seen["before"]):
        images = torch.cat(list(data.images_of(part, torch.device("cpu"))))[known]
        q = net.eval()(images).softmax(1)
        losses = -q[torch.arange(len(q)), part.labels[known]].log().detach().double()
        scaled = (losses - losses.min()) / (losses.max() - losses.min())
        mixture = GaussianMixture(2, max_iter=10, tol=1e-2, reg_covar=5e-4, random_state=0)
        posterior = mixture.fit(scaled[:, None].numpy()).predict_proba(scaled[:, None].numpy())
        expected = torch.zeros(len(data.labels))
        expected[part.index[known]] = torch.from_numpy(
            posterior[:, mixture.means_.argmin()]
        ).float()
        torch.testing.assert_close(seen["clean"][row], expected, rtol=0, atol=1e-3)
    assert not torch.equal(*seen["clean"])


class Weights(Callback):
    def __init__(self) -> None:
        self.found: list[float] = []

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: TrainBatch, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, DivideMix)
        self.found.append(pl_module._unlabelled_weight())


def test_lambda_u_rises_in_a_straight_line_from_the_end_of_warm_up() -> None:
    weights = Weights()
    model = divided(warmup_epochs=1, lambda_u=8.0, ramp_epochs=2)
    watched(model, blobs(), 4, limit_train_batches=2, callbacks=[weights])
    assert weights.found[2:] == [0.0, 2.0, 4.0, 6.0, 8.0, 8.0]


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_warm_up_trains_both_networks_and_may_hold_back_certainty(weight: float) -> None:
    model = divided(warmup_epochs=1, warmup_entropy_weight=weight)
    nets = copy.deepcopy([model.network, model.peer])
    kept: list[Batch] = []
    model.on_train_batch_start = lambda batch, _: kept.append(batch["train"])  # type: ignore
    watched(model, blobs(), 1, limit_train_batches=1, precision="64-true")
    for net, got in zip(nets, (model.network, model.peer), strict=True):
        q = net.double()(kept[0].images).softmax(1)
        loss = -q[torch.arange(len(q)), kept[0].labels].log().mean()
        loss = loss + weight * (q * q.log()).sum(1).mean()
        grads = torch.autograd.grad(loss, list(net.parameters()))
        for before, grad, after in zip(net.parameters(), grads, got.parameters(), strict=True):
            torch.testing.assert_close(after, before - LR * grad, rtol=1e-9, atol=1e-12)


def test_half_precision_reaches_the_weights() -> None:
    """Weights that autocast has cast without a gradient must not be used again with one."""
    model = divided(warmup_epochs=0)
    seen = watched(model, blobs(), 1, limit_train_batches=1, precision="bf16-mixed")
    for before, after in zip(seen["before"], seen["after"], strict=True):
        for (name, old), new in zip(before.named_parameters(), after.parameters(), strict=True):
            assert not torch.equal(old, new), name


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"warmup_entropy_weight": -1.0}, "warmup_entropy_weight must be 0 or more, got -1.0"),
        ({"threshold": 1.0}, r"threshold must be in \[0, 1\), got 1.0"),
        ({"temperature": 0.0}, "temperature must be positive, got 0.0"),
        ({"alpha": 0.0}, "alpha must be positive, got 0.0"),
        ({"lambda_u": -1.0}, "lambda_u must be 0 or more, got -1.0"),
        ({"ramp_epochs": -1}, "ramp_epochs must be 0 or more, got -1"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        divided(**arguments)
