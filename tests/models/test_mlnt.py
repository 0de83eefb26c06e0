"""MLNT against its equations."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable

import pytest
import torch
from hydra.utils import instantiate
from lightning.pytorch import Callback, Trainer
from torch import Tensor, nn
from torch.func import functional_call

from mln_lightning.batch import UNKNOWN, Batch, StepOutput
from mln_lightning.config import compose
from mln_lightning.data import NoisyLabelDataModule
from mln_lightning.models import MLNT
from mln_lightning.neighbours import nearest
from mln_lightning.networks import SmallCNN
from tests.models.test_base import Watch
from tests.models.weighing import assert_close, momentum_steps

LR, DECAY = 0.05, 0.01
SGD = functools.partial(torch.optim.SGD, lr=LR, momentum=0.9, weight_decay=DECAY)
State = dict[str, Tensor]


def blobs(*overrides: str) -> NoisyLabelDataModule:
    cfg = compose(["dataset=blobs", "model=cross_entropy", "noise=sym", "rate=0.3", *overrides])
    data: NoisyLabelDataModule = instantiate(cfg.dataset, _partial_=True)(
        noise=instantiate(cfg.noise)
    )
    return data


def built(**options: float) -> MLNT:
    torch.manual_seed(0)
    return MLNT(SmallCNN((1, 8, 8), 4), 4, SGD, **({"warmup_epochs": 0} | options))  # type: ignore[arg-type]


def fit(
    model: MLNT,
    data: NoisyLabelDataModule,
    *callbacks: Callback,
    epochs: int = 1,
    steps: int = 1,
    precision: str = "32-true",
) -> None:
    Trainer(
        max_epochs=epochs,
        limit_train_batches=steps,
        limit_val_batches=0,
        accelerator="cpu",
        precision=precision,  # type: ignore[arg-type]
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
    ).fit(model, datamodule=data)


def log_p(module: nn.Module, at: State, images: Tensor) -> Tensor:
    logits: Tensor = functional_call(module, at, (images,))
    return logits.log_softmax(dim=1)


def gradient(loss: Tensor, at: State, names: list[str]) -> State:
    leaves = [at[name] for name in names]
    return dict(zip(names, torch.autograd.grad(loss, leaves, retain_graph=True), strict=True))


def leaf(state: State, names: list[str]) -> State:
    return {k: v.clone().requires_grad_(k in names) for k, v in state.items()}


def cross(log_probabilities: Tensor, labels: Tensor) -> Tensor:
    return -log_probabilities[torch.arange(len(labels)), labels].mean()


def one_gradient(
    module: nn.Module, state: State, teacher: State, train: Batch, drawn: list[Tensor], lr: float
) -> tuple[State, State, float, float]:
    """∂ cross-entropy, first-order ∂ agreement, and both losses; ``state`` gets new statistics."""
    names = [name for name, _ in module.named_parameters()]
    before = leaf(state, names)  # its statistics change in place
    predicted = log_p(module.train(), before, train.images)
    loss = cross(predicted, train.labels)
    usual = gradient(loss, before, names)
    target = log_p(copy.deepcopy(module).eval(), teacher, train.images).detach()
    towards = {name: torch.zeros_like(state[name]) for name in names}
    total = 0.0
    for labels in drawn:
        step = gradient(cross(predicted, labels), before, names)
        moved = {name: state[name] - lr * step[name] for name in names}
        virtual = leaf({**state, **moved}, names)
        found = log_p(module, virtual, train.images)
        apart = (target.exp() * (target - found)).sum() / len(labels)
        for name, grad in gradient(apart, virtual, names).items():
            towards[name] += grad / len(drawn)
        total += apart.item() / len(drawn)
    state |= {name: value for name, value in before.items() if name not in names}
    return usual, towards, loss.item(), total


class Given(Callback):
    """Keeps the training batches."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        self.batches.append(Batch(*(column.clone() for column in batch["train"])))


def recorded(model: MLNT) -> list[Tensor]:
    drawn: list[Tensor] = []
    real: Callable[..., Tensor] = model.synthetic_labels

    def draw(train: Batch, draws: torch.Generator) -> Tensor:
        drawn.append(real(train, draws))
        return drawn[-1]

    model.synthetic_labels = draw  # type: ignore[method-assign]
    return drawn


def test_three_steps_equal_the_algorithm() -> None:
    steps, number = 3, 2
    model = built(num_synthetic=number, ramp_epochs=1, consistency_weight=4.0, virtual_lr=0.5)
    module = copy.deepcopy(model.network).double()
    state = {name: value.clone() for name, value in module.state_dict().items()}
    teacher = {name: value.clone() for name, value in state.items()}
    theta = {name: state[name] for name, _ in module.named_parameters()}
    given, watch, drawn = Given(), Watch(), recorded(model)
    fit(model, blobs(), given, watch, steps=steps, precision="64-true")

    assert len(drawn) == steps * number
    start, grads, losses = dict(theta), [], []
    for k, train in enumerate(given.batches):
        assert train.images.dtype == torch.float64
        labels = drawn[k * number : (k + 1) * number]
        assert all(not torch.equal(one, train.labels) for one in labels)
        usual, towards, loss, apart = one_gradient(module, state, teacher, train, labels, 0.5)
        weight = 4.0 * math.exp(-5 * (1 - k / steps) ** 2)
        grads.append({name: usual[name] + weight * towards[name] for name in theta})
        losses.append(loss + weight * apart)
        state |= momentum_steps(start, grads, lr=LR, weight_decay=DECAY)
        for name, value in teacher.items():
            if "num_batches" in name:
                teacher[name] = state[name].clone()
            else:
                teacher[name] = 0.99 * value + 0.01 * state[name]

    outputs: list[StepOutput] = watch.outputs
    assert [float(o["loss"]) for o in outputs] == pytest.approx(losses, rel=1e-9)
    assert_close(dict(model.network.state_dict()), state)
    assert_close(dict(model.teacher.state_dict()), teacher)


@pytest.mark.parametrize("number", [1, 4])
def test_nearest_others_by_looking_at_all_pairs(number: int) -> None:
    points = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    points[7] = points[3]
    found = nearest(points, number)
    between = (points[:, None].double() - points.double()).pow(2).sum(dim=2)
    between.fill_diagonal_(math.inf)
    # By distance: the two copies are equally far from the others.
    assert torch.equal(between.gather(1, found), between.sort(dim=1).values[:, :number])
    assert found[3, 0] == 7
    assert found[7, 0] == 3
    with pytest.raises(ValueError, match="from 1 to 3 for 4 points, got 4"):
        nearest(points[:4], 4)


@pytest.mark.parametrize("unlabelled", [0, 50])
def test_neighbours_are_those_of_the_warmed_up_network(unlabelled: int) -> None:
    model, data = built(num_synthetic=1), blobs(f"dataset.num_unlabelled={unlabelled}")
    assert isinstance(model.network, SmallCNN)
    body = copy.deepcopy(model.network.layers[:-1]).eval()
    fit(model, data)
    part = data.parts.train
    known = part.index[part.labels != UNKNOWN]
    labels = part.source.labels[known]
    assert len(known) == 320 - unlabelled
    with torch.no_grad():
        points = body(data.normalize(part.source[known].images)).double()
    between = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
    between.fill_diagonal_(math.inf)
    expected = torch.full((400, 10), UNKNOWN)
    expected[known] = labels[between.argsort(dim=1)[:, :10]]
    assert torch.equal(model.neighbour_labels, expected)
    assert model.network.training
    assert not model.teacher.training


@pytest.mark.parametrize(("rate", "changed"), [(0.0, 0), (0.5, 3), (1.0, 7)])
def test_a_share_of_the_labels_comes_from_neighbours(rate: float, changed: int) -> None:
    model = built(synthetic_rate=rate)
    model.prepare_once(torch.zeros(30, dtype=torch.int64))
    model.neighbour_labels.copy_(torch.arange(300).view(30, 10) + 100)
    index = torch.tensor([3, 29, 0, 11, 5, 17, 8])
    observed = torch.arange(7) % 4
    train = Batch(torch.zeros(7, 1, 8, 8), observed, observed, index)
    draws = torch.Generator().manual_seed(0)
    seen = set()
    for _ in range(40):
        labels = model.synthetic_labels(train, draws)
        new = labels != observed
        assert int(new.sum()) == changed
        assert torch.equal((labels[new] - 100) // 10, index[new]), "tables are by sample"
        seen |= set(labels[new].tolist())
    assert torch.equal(train.labels, torch.arange(7) % 4)
    assert len(seen) > 50 or not changed


def test_the_weight_rises_after_warm_up_and_stays() -> None:
    model = built(num_synthetic=1, warmup_epochs=1, ramp_epochs=2)
    weights: list[float] = []
    real = model.ramp
    model.ramp = lambda: weights.append(real()) or weights[-1]  # type: ignore[method-assign, func-returns-value]
    fit(model, blobs(), epochs=4, steps=2)
    rising = [math.exp(-5 * (1 - u) ** 2) for u in (0, 0.25, 0.5, 0.75)]
    assert weights == pytest.approx([*rising, 1, 1], rel=1e-12)
    model.ramp_epochs = 0
    assert real() == 1


def test_the_teacher_is_evaluated_once_there_is_one() -> None:
    model = built(num_synthetic=1, warmup_epochs=1)
    assert model.classifier() is model.network
    warmed_up = []

    class Classifier(Callback):
        def on_train_epoch_end(self, trainer, pl_module) -> None:
            warmed_up.append((pl_module.classifier(), copy.deepcopy(pl_module.state_dict())))

    fit(model, blobs(), Classifier(), epochs=2)
    assert [found for found, _ in warmed_up] == [model.network, model.teacher]
    model.load_state_dict(warmed_up[0][1])  # weights alone, as of a selected epoch
    assert model.classifier() is model.network


def test_too_few_labelled_samples_are_refused() -> None:
    labels = torch.full((30,), UNKNOWN)
    labels[:10] = 0
    with pytest.raises(ValueError, match="more than 10 training samples must have a label; 10"):
        built().prepare_once(labels)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"ramp_epochs": -1}, "ramp_epochs must be 0 or more, got -1"),
        ({"num_synthetic": 0}, "num_synthetic must be 1 or more, got 0"),
        ({"virtual_lr": -0.2}, "virtual_lr must be 0 or more, got -0.2"),
        ({"consistency_weight": -1.0}, "consistency_weight must be 0 or more, got -1.0"),
        ({"synthetic_rate": 1.5}, "synthetic_rate must be from 0 to 1, got 1.5"),
        ({"teacher_decay": math.nan}, "teacher_decay must be from 0 to 1, got nan"),
    ],
)
def test_arguments_out_of_range_are_refused(options: dict[str, float], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        built(**options)
