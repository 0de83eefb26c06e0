"""Forward, backward and gold loss correction: steps, estimates and starting over."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable

import pytest
import torch
from hydra.utils import instantiate
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.nn.functional import batch_norm, cross_entropy, linear, relu
from torch.utils.data import DataLoader

from mln_lightning.batch import Batch, TrainBatch
from mln_lightning.callbacks import Reseed
from mln_lightning.config import compose, plan
from mln_lightning.data import NoisyLabelDataModule
from mln_lightning.errors import UserError
from mln_lightning.models import BackwardCorrection, ForwardCorrection, GoldLossCorrection
from mln_lightning.noise import symmetric
from mln_lightning.preflight import check

B, M, C = 6, 5, 3
RATE, MOMENTUM, DECAY = 0.1, 0.9, 1e-2
SGD = functools.partial(torch.optim.SGD, lr=RATE, momentum=MOMENTUM, weight_decay=DECAY)
T = torch.tensor([[0.7, 0.2, 0.1], [0.0, 0.9, 0.1], [0.25, 0.25, 0.5]], dtype=torch.float64)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, C)
    )


def trainer(epochs: int) -> Trainer:
    return Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        precision="64-true",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Reseed(0)],
    )


def fixed_batches(number: int) -> list[TrainBatch]:
    generator = torch.Generator().manual_seed(1)

    def batch(size: int) -> Batch:
        images = torch.randn(size, 1, 4, 4, generator=generator, dtype=torch.float64)
        labels = torch.randint(C, (size,), generator=generator)
        return Batch(images, labels, labels, torch.arange(size))

    return [TrainBatch(train=batch(B), meta=batch(M)) for _ in range(number)]


# -- one step against a transcription in plain torch -------------------------------------------


def logits_by_hand(weights: list[Tensor], images: Tensor) -> Tensor:
    """The network above in training mode, written out."""
    hidden = linear(images.flatten(1), weights[0], weights[1])
    hidden = batch_norm(hidden, None, None, weights[2], weights[3], training=True, eps=1e-5)
    return linear(relu(hidden), weights[4], weights[5])


def forward_loss(weights: list[Tensor], batch: TrainBatch) -> Tensor:
    p = logits_by_hand(weights, batch["train"].images).softmax(1)
    return -torch.stack(
        [(p[i] @ T[:, y]).log() for i, y in enumerate(batch["train"].labels)]
    ).mean()


def backward_loss(weights: list[Tensor], batch: TrainBatch) -> Tensor:
    losses = -logits_by_hand(weights, batch["train"].images).log_softmax(1)
    solved = torch.linalg.solve(T, losses.T).T  # T⁻¹ ℓ of each image
    return torch.stack([solved[i, y] for i, y in enumerate(batch["train"].labels)]).mean()


def gold_loss(weights: list[Tensor], batch: TrainBatch) -> Tensor:
    train, meta = batch["train"], batch["meta"]
    p = logits_by_hand(weights, torch.cat([train.images, meta.images])).softmax(1)
    noisy = [-(p[i] @ T[:, y]).log() for i, y in enumerate(train.labels)]
    clean = [-p[B + i, y].log() for i, y in enumerate(meta.labels)]
    return torch.stack(noisy + clean).mean()


@pytest.mark.parametrize(
    ("method", "transcribed"),
    [
        (ForwardCorrection, forward_loss),
        (BackwardCorrection, backward_loss),
        (GoldLossCorrection, gold_loss),
    ],
)
def test_two_steps_equal_the_equations(
    method: type[ForwardCorrection], transcribed: Callable[[list[Tensor], TrainBatch], Tensor]
) -> None:
    net = network().double()
    model = method(net, C, SGD, transition=T, restart=False, warmup_epochs=0)
    model = model.double()
    model.transition.copy_(T)  # the constructor keeps it in single precision
    if isinstance(model, BackwardCorrection):
        model.inverse.copy_(torch.linalg.inv(T))
    weights = [p.detach().clone().requires_grad_() for p in net.parameters()]
    velocity = [torch.zeros_like(p) for p in weights]
    batches = fixed_batches(2)
    for batch in batches:
        grads = torch.autograd.grad(transcribed(weights, batch), weights)
        for i, (p, g) in enumerate(zip(weights, grads, strict=True)):
            velocity[i] = MOMENTUM * velocity[i] + g + DECAY * p.detach()
            weights[i] = (p - RATE * velocity[i]).detach().requires_grad_()

    fit = trainer(1)
    fit.fit(model, DataLoader(batches, batch_size=None))  # type: ignore[arg-type]
    assert fit.global_step == 2
    for got, expected in zip(net.parameters(), weights, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-11)


def test_gold_reports_both_losses() -> None:
    model = GoldLossCorrection(network(), C, SGD, transition=T, warmup_epochs=0).double()
    (batch,) = fixed_batches(1)
    model.descend = lambda loss: None  # type: ignore[method-assign]
    out = model.noisy_step(batch)
    together = model.network(torch.cat([batch["train"].images, batch["meta"].images]))
    torch.testing.assert_close(out["logits"], together[:B].detach())
    expected = cross_entropy(together[B:], batch["meta"].labels).detach()
    torch.testing.assert_close(out["meta_loss"], expected)


# -- the end of the warm-up ----------------------------------------------------------------------


@functools.cache
def fit_blobs(method: str, *overrides: str) -> tuple[ForwardCorrection, dict[str, object]]:
    """Two epochs, the first of them warm-up, and what was seen around its end."""
    cfg = compose(["dataset=blobs", f"model={method}", "noise=asym", *overrides])
    torch.manual_seed(0)
    data = instantiate(cfg.dataset, _partial_=True)(noise=instantiate(cfg.noise))
    assert isinstance(data, NoisyLabelDataModule)
    model: ForwardCorrection = instantiate(cfg.model)
    seen: dict[str, object] = {"data": data, "start": copy.deepcopy(model.network.state_dict())}
    end_warmup = model.on_warmup_end

    def watched() -> None:
        state = model.trainer.optimizers[0].state
        seen["steps before"] = model.global_step
        seen["warmed up"] = copy.deepcopy(model.network)
        seen["momenta before"] = len(state)
        end_warmup()
        seen["after"] = copy.deepcopy(model.network.state_dict())
        seen["momenta after"] = len(state)
        seen["modes"] = {module.training for module in model.network.modules()}

    model.on_warmup_end = watched  # type: ignore[method-assign]
    trainer(2).fit(model, datamodule=data)
    return model, seen


def predictions(seen: dict[str, object], part: str) -> tuple[Tensor, Tensor]:
    """Images of a part, normalised by hand, through the warmed-up network; and their labels."""
    data, warmed = seen["data"], seen["warmed up"]
    assert isinstance(data, NoisyLabelDataModule)
    assert isinstance(warmed, nn.Module)
    rows = data.parts.train if part == "train" else data.parts.meta
    mean, std = data.info.mean[0], data.info.std[0]
    images = (rows.source.images.fetch(rows.index).double() / 255 - mean) / std
    with torch.no_grad():
        return warmed.eval()(images).softmax(1), rows.labels


WITH_RESTART = ("forward", "model.warmup_epochs=1", "model.outliers=0")
WITHOUT_RESTART = ("forward", "model.warmup_epochs=1", "model.outliers=0.4", "model.restart=false")


def test_the_surest_training_images_make_the_matrix() -> None:
    model, seen = fit_blobs(*WITH_RESTART)
    p, _ = predictions(seen, "train")
    assert seen["steps before"] == 10, "an epoch of ten steps"
    expected = torch.stack([p[int(p[:, c].argmax())] for c in range(4)])
    torch.testing.assert_close(model.transition, expected, rtol=1e-5, atol=1e-6)
    assert seen["modes"] == {True}


def test_outliers_are_no_anchors() -> None:
    model, seen = fit_blobs(*WITHOUT_RESTART)
    p, _ = predictions(seen, "train")
    place = int(0.9 * (len(p) - 1))
    expected = torch.stack([p[int(p[:, c].argsort()[place])] for c in range(4)])
    torch.testing.assert_close(model.transition, expected, rtol=1e-5, atol=1e-6)


def test_mean_predictions_on_the_meta_set_make_the_matrix() -> None:
    model, seen = fit_blobs("glc", "model.warmup_epochs=1")
    assert isinstance(model, GoldLossCorrection)
    assert model.initial is not None, "it starts over"
    p, labels = predictions(seen, "meta")
    expected = torch.stack([p[labels == c].mean(0) for c in range(4)])
    torch.testing.assert_close(model.transition, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("restart", [True, False])
def test_starting_over_is_from_the_initial_weights_and_without_momentum(restart: bool) -> None:
    model, seen = fit_blobs(*(WITH_RESTART if restart else WITHOUT_RESTART))
    start, after, warmed = seen["start"], seen["after"], seen["warmed up"]
    assert isinstance(start, dict)
    assert isinstance(after, dict)
    assert isinstance(warmed, nn.Module)
    expected = start if restart else warmed.state_dict()
    for name, value in after.items():  # batch-norm statistics and counts too
        assert torch.equal(value, expected[name].to(value.dtype)), name
    assert any(not torch.equal(v, start[k].to(v.dtype)) for k, v in warmed.state_dict().items())
    assert seen["momenta before"] == len(list(model.network.parameters()))
    assert seen["momenta after"] == (0 if restart else seen["momenta before"])
    assert any(not torch.equal(v, after[k]) for k, v in model.network.state_dict().items())


def test_backward_inverts_what_was_estimated() -> None:
    model = BackwardCorrection(network(), C, SGD, transition="anchor").double()
    assert torch.equal(model.inverse, torch.eye(C).double()), "nothing to correct before"
    model.use(T)
    torch.testing.assert_close(model.inverse @ T, torch.eye(C).double())


# -- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize("noise", ["instance rate=0.2", "none", "teacher rate=0.2"])
def test_no_oracle_where_the_noise_has_no_matrix(noise: str) -> None:
    (job,) = plan(f"model=forward_oracle noise={noise}".split()).jobs
    with pytest.raises(UserError) as refused:
        check(job)
    said = str(refused.value)
    assert said.startswith("model=forward_oracle is told the transition matrix of the noise, and ")
    assert f"noise={noise.split()[0]} has none; choose a noise with one" in said
    assert "\n" not in said


@pytest.mark.parametrize("noise", ["sym", "asym", "pair", "random_matrix"])
def test_an_oracle_is_told_the_matrix_of_the_noise(noise: str) -> None:
    (job,) = plan(["dataset=blobs", "model=forward_oracle", f"noise={noise}", "rate=0.3"]).jobs
    check(job)
    model: ForwardCorrection = instantiate(job.cfg.model)
    expected = instantiate(job.cfg.noise).transition
    torch.testing.assert_close(model.transition, expected.float())
    assert (model.estimate, model.initial, model.warmup_epochs) == (None, None, 0)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"transition": "guess"}, r"'anchor', 'meta' or a \(C, C\) tensor, got 'guess'"),
        ({"transition": None}, r"'anchor', 'meta' or a \(C, C\) tensor, got None"),
        ({"transition": torch.eye(4)}, "must have 3 rows, one for each class, got 4"),
        ({"transition": T.T}, "transpose it, rows are clean classes"),
        ({"transition": "meta", "warmup_epochs": 0}, "1 or more to estimate .*, got 0"),
        ({"transition": T, "outliers": 1.0}, "at least 0 and below 1, got 1.0"),
        ({"transition": T, "outliers": -0.1}, "at least 0 and below 1, got -0.1"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        ForwardCorrection(network(), C, SGD, **arguments)  # type: ignore[arg-type]


def test_backward_is_bounded_by_its_floor() -> None:
    """Sure of a class that was not observed: −log p is 200 there, and 16.1 at most with a floor."""
    logits, label = torch.tensor([[200.0, 0.0, 0.0]]), torch.tensor([1])
    inverse = torch.linalg.inv(T)
    for floor, worst in ((1e-7, 16.1181), (0.0, 200.0)):
        model = BackwardCorrection(network(), C, SGD, transition=T, floor=floor)
        expected = inverse[1, 1:].sum() * worst
        torch.testing.assert_close(
            model.corrected_loss(logits, label), expected.float(), rtol=1e-4, atol=0
        )
    with pytest.raises(ValueError, match=r"floor must be at least 0 and below 1, got 1\.5"):
        BackwardCorrection(network(), C, SGD, transition=T, floor=1.5)


def test_backward_refuses_a_matrix_without_inverse() -> None:
    alike = symmetric(C, 2 / 3)
    ForwardCorrection(network(), C, SGD, transition=alike)
    with pytest.raises(ValueError, match="cannot be inverted reliably"):
        BackwardCorrection(network(), C, SGD, transition=alike)
