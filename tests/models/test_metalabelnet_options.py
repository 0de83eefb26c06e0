"""The options of MetaLabelNet, each against its equations in plain torch."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import batch_norm, cross_entropy, softplus
from torch.utils.data import DataLoader

from mln_lightning.batch import UNKNOWN, Batch, StepOutput, TrainBatch
from mln_lightning.models import MetaLabelNet

B, M, F, C = 6, 5, 4, 3
LR, MOMENTUM, DECAY, BETA, LAMBDA = 0.05, 0.9, 0.01, 0.1, 0.7
STEPS = 3

Point = dict[str, Tensor]
SGD = functools.partial(torch.optim.SGD, lr=LR, momentum=MOMENTUM, weight_decay=DECAY)
META_SGD = functools.partial(torch.optim.SGD, lr=BETA)
STUDENT_FIRST = {
    "order": "student_first",
    "virtual_lr": "current",
    "meta_weight": 0.0,
    "regenerate_labels": False,
}


def network() -> nn.Module:
    """Smooth, with batch-norm; `features` and `logits` below are the same by hand."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(8, F),
        nn.BatchNorm1d(F),
        nn.Softplus(),
        nn.Linear(F, C),
    ).double()


def features(point: Point, images: Tensor, stats: Point | None = None) -> Tensor:
    """In train mode, or with running ``stats`` in eval mode."""
    hidden = images.flatten(1) @ point["1.weight"].T + point["1.bias"]
    mean, var = (stats["2.running_mean"], stats["2.running_var"]) if stats else (None, None)
    normed = batch_norm(hidden, mean, var, point["2.weight"], point["2.bias"], training=not stats)
    return softplus(normed)


def logits(point: Point, images: Tensor) -> Tensor:
    return features(point, images) @ point["4.weight"].T + point["4.bias"]


def batches(*, unlabelled: int = 2) -> list[TrainBatch]:
    generator = torch.Generator().manual_seed(1)

    def batch(size: int) -> Batch:
        images = torch.randn(size, 1, 2, 4, generator=generator, dtype=torch.float64)
        labels = torch.randint(C, (size,), generator=generator)
        return Batch(images, labels, torch.full((size,), UNKNOWN), torch.arange(size))

    made = []
    for _ in range(STEPS):
        train, meta = batch(B), batch(M)
        train.labels[:unlabelled] = UNKNOWN
        made.append(TrainBatch(train=train, meta=meta))
    return made


def fit(model: MetaLabelNet, data: list[TrainBatch], epochs: int = 1) -> list[StepOutput]:
    """Train for real, and keep what every step reported."""
    outputs: list[StepOutput] = []
    step = model.noisy_step
    model.noisy_step = lambda b: outputs.append(step(b)) or outputs[-1]  # type: ignore[method-assign]
    trainer = Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        precision="64-true",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, DataLoader(data, batch_size=None))  # type: ignore[arg-type]
    assert trainer.global_step == epochs * len(data), "one step of the main optimiser per batch"
    return outputs


class ByHand:
    """The iteration with everything differentiated through, by double backward.

    ``fit`` is the divergence as a function of p and ŷ, ``encode`` the generator's input as a
    function of θ and the encoder; both are given by the test.
    """

    def __init__(
        self,
        net: nn.Module,
        generator: nn.Module,
        *,
        fit: Callable[[Tensor, Tensor], Tensor],
        order: str = "virtual_first",
        alpha: float = 1.0,
        meta_weight: float = 0.0,
        gamma: float = 0.0,
        regenerate: bool = True,
        encoder: str = "frozen",
        encoder_decay: float = 0.0,
        every: int = 1,
    ) -> None:
        self.theta = {k: v.detach().clone() for k, v in net.named_parameters()}
        self.stats = {k: v.clone() for k, v in net.named_buffers() if "num" not in k}
        self.encoder = {**self.theta, **self.stats}
        self.module = copy.deepcopy(generator)
        self.phi = {k: v.detach().clone() for k, v in generator.named_parameters()}
        self.momentum: Point = {}
        self.fit, self.order, self.alpha, self.gamma = fit, order, alpha, gamma
        self.meta_weight, self.regenerate = meta_weight, regenerate
        self.kind, self.decay = encoder, encoder_decay
        self.every, self.taken = every, 0

    def soft(self, phi: Point, encoded: Tensor) -> Tensor:
        return functional_call(self.module, phi, (encoded,)).exp()

    def moved(self, theta: Point, grads: Point) -> Point:
        """One step of SGD with momentum and weight decay, differentiable."""
        self.new_momentum = {}
        for name, p in theta.items():
            full = grads[name] + DECAY * p
            before = self.momentum.get(name)
            self.new_momentum[name] = full if before is None else MOMENTUM * before + full
        return {k: p - LR * self.new_momentum[k] for k, p in theta.items()}

    def conventional(self, p: Tensor, soft: Tensor) -> Tensor:
        return self.fit(p, soft) - LAMBDA * (p * p.log()).sum(1).mean()

    def step(self, batch: TrainBatch) -> dict[str, Tensor]:
        x, observed = batch["train"].images, batch["train"].labels
        xm, ym = batch["meta"].images, batch["meta"].labels
        seen = {**self.theta, **self.stats} if self.kind == "current" else self.encoder
        encoded = features(seen, x, seen)
        before = self.theta
        theta = {k: v.clone().requires_grad_() for k, v in before.items()}
        self.taken += 1
        if (self.taken - 1) % self.every:
            return self.step_between(theta, encoded, x)
        phi = {k: v.clone().requires_grad_() for k, v in self.phi.items()}
        p, soft = logits(theta, x).softmax(1), self.soft(phi, encoded)
        student_first = self.order == "student_first"
        loss = (self.conventional if student_first else self.fit)(p, soft)
        grads = dict(
            zip(theta, torch.autograd.grad(loss, theta.values(), create_graph=True), strict=True)
        )
        if student_first:
            virtual = self.moved(theta, grads)
        else:
            virtual = {k: v - self.alpha * grads[k] for k, v in theta.items()}
        meta_loss = cross_entropy(logits(virtual, xm), ym)
        v = torch.autograd.grad(meta_loss, virtual.values(), retain_graph=True)
        known = observed != UNKNOWN
        compatible = cross_entropy(soft[known].log(), observed[known]) if known.any() else 0.0
        objective = meta_loss + self.gamma * compatible
        meta_grads = torch.autograd.grad(objective, phi.values(), retain_graph=True)
        self.phi = {
            k: (q - BETA * g).detach() for (k, q), g in zip(phi.items(), meta_grads, strict=True)
        }
        if student_first:
            new_theta = virtual
        else:
            used = self.soft(self.phi, encoded) if self.regenerate else soft.detach()
            loss, soft = self.conventional(p, used), used
            plain = torch.autograd.grad(loss, theta.values())
            new_theta = self.moved(
                theta,
                {k: g + self.meta_weight * c for k, g, c in zip(theta, plain, v, strict=True)},
            )
        self._take_over(new_theta, before, x)
        return {"loss": loss, "meta_loss": meta_loss, "soft_labels": soft}

    def step_between(self, theta: Point, encoded: Tensor, x: Tensor) -> dict[str, Tensor]:
        """Without a meta step: the present labels, and nothing clean."""
        soft = self.soft(self.phi, encoded)
        loss = self.conventional(logits(theta, x).softmax(1), soft)
        grads = torch.autograd.grad(loss, theta.values())
        self._take_over(self.moved(theta, dict(zip(theta, grads, strict=True))), theta, x)
        return {"loss": loss, "soft_labels": soft}

    def _take_over(self, new_theta: Point, before: Point, x: Tensor) -> None:
        self.theta = {k: t.detach() for k, t in new_theta.items()}
        self.momentum = {k: t.detach() for k, t in self.new_momentum.items()}
        self._running({k: t.detach() for k, t in before.items()}, x)
        if self.kind == "average":
            for k, t in {**self.theta, **self.stats}.items():
                self.encoder[k] = self.decay * self.encoder[k] + (1 - self.decay) * t

    def _running(self, theta: Point, x: Tensor) -> None:
        hidden = x.flatten(1) @ theta["1.weight"].T + theta["1.bias"]
        for name, value in (("running_mean", hidden.mean(0)), ("running_var", hidden.var(0))):
            key = f"2.{name}"
            self.stats[key] = 0.9 * self.stats[key] + 0.1 * value

    def run(self, data: list[TrainBatch]) -> list[dict[str, Tensor]]:
        return [self.step(batch) for batch in data]


def reverse(p: Tensor, soft: Tensor) -> Tensor:
    return (p * (p.log() - soft.log())).sum(1).mean()


def forward(p: Tensor, soft: Tensor) -> Tensor:
    return (soft * (soft.log() - p.log())).sum(1).mean()


def soft_cross_entropy(p: Tensor, soft: Tensor) -> Tensor:
    return -(soft * p.log()).sum(1).mean()


CASES = {
    "defaults": ({}, {"meta_weight": 1.0}),
    "student_first": (STUDENT_FIRST, {"order": "student_first"}),
    "student_first forward": (
        {**STUDENT_FIRST, "kl_direction": "forward"},
        {"order": "student_first", "fit": forward},
    ),
    "student_first compatibility": (
        {**STUDENT_FIRST, "compatibility_weight": 0.3},
        {"order": "student_first", "gamma": 0.3},
    ),
    "forward": ({"kl_direction": "forward"}, {"fit": forward, "meta_weight": 1.0}),
    "current rate": ({"virtual_lr": "current"}, {"alpha": LR, "meta_weight": 1.0}),
    "compatibility": ({"compatibility_weight": 0.3}, {"gamma": 0.3, "meta_weight": 1.0}),
    "labels kept": ({"regenerate_labels": False}, {"regenerate": False, "meta_weight": 1.0}),
    "hidden layer": ({"hidden_dim": 7, "generator_start": "random"}, {"meta_weight": 1.0}),
    "average": (
        {"encoder": "average", "encoder_decay": 0.8},
        {"encoder": "average", "encoder_decay": 0.8, "meta_weight": 1.0},
    ),
    "current": ({"encoder": "current"}, {"encoder": "current", "meta_weight": 1.0}),
    "lean": ({"lean_memory": True}, {"meta_weight": 1.0}),
    "student_first lean": ({**STUDENT_FIRST, "lean_memory": True}, {"order": "student_first"}),
    "every second": ({"meta_every": 2}, {"every": 2, "meta_weight": 1.0}),
    "student_first every second": (
        {**STUDENT_FIRST, "meta_every": 2},
        {"order": "student_first", "every": 2},
    ),
    "average, every second": (
        {"encoder": "average", "encoder_decay": 0.8, "meta_every": 2, "compatibility_weight": 0.3},
        {"encoder": "average", "encoder_decay": 0.8, "every": 2, "gamma": 0.3, "meta_weight": 1.0},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_three_steps_equal_the_equations(case: str) -> None:
    options, equations = CASES[case]
    net = network()
    model = MetaLabelNet(
        net, C, SGD, META_SGD, warmup_epochs=0, entropy_weight=LAMBDA, **options
    ).double()
    model.on_warmup_end()  # what the first step will do: the generator may start from the head
    by_hand = ByHand(net, model.generator, **{"fit": reverse, **equations})
    data = batches()
    expected = by_hand.run(data)
    got = fit(model, data)
    for step, (mine, its) in enumerate(zip(got, expected, strict=True)):
        assert its.keys() == mine.keys() - {"logits"}
        for key, value in its.items():
            torch.testing.assert_close(
                mine[key], value.detach(), rtol=1e-9, atol=1e-11, msg=f"{key} of step {step}"
            )
    for state, module in ((by_hand.theta, net), (by_hand.phi, model.generator)):
        for name, parameter in module.named_parameters():
            torch.testing.assert_close(
                parameter.detach(), state[name], rtol=1e-9, atol=1e-11, msg=name
            )
    for name, value in by_hand.stats.items():
        torch.testing.assert_close(net.state_dict()[name], value, rtol=1e-9, atol=1e-11, msg=name)
    if model.encoder is not None:
        for name, value in by_hand.encoder.items():
            torch.testing.assert_close(model.encoder.state_dict()[name], value, msg=name)


def test_a_cross_entropy_with_soft_labels_teaches_the_generator_as_forward_kl_does() -> None:
    """They differ by the soft label's entropy, through which φ does not reach θ."""
    phis = []
    for loss in (forward, soft_cross_entropy):
        net = network()
        torch.manual_seed(2)
        generator = MetaLabelNet(net, C, SGD, META_SGD).double().generator
        by_hand = ByHand(net, generator, fit=loss)
        by_hand.run(batches())
        phis.append(by_hand.phi)
    for name, value in phis[0].items():
        torch.testing.assert_close(value, phis[1][name], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_compatibility_of_a_batch_without_labels_is_nothing(weight: float) -> None:
    model = MetaLabelNet(
        network(), C, SGD, META_SGD, warmup_epochs=0, compatibility_weight=weight
    ).double()
    fit(model, batches(unlabelled=B))
    other = MetaLabelNet(network(), C, SGD, META_SGD, warmup_epochs=0).double()
    fit(other, batches(unlabelled=B))
    for name, value in other.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=1e-12, atol=0)


def test_looking_at_current_features_leaves_the_network_as_it_is() -> None:
    model = MetaLabelNet(network(), C, SGD, META_SGD, encoder="current").double().train()
    before = copy.deepcopy(model.state_dict())
    model.soft_labels(batches()[0]["train"].images)
    assert model.network.training
    assert model.network[2].training
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"order": "both"}, "order must be 'virtual_first' or 'student_first', got 'both'"),
        ({"kl_direction": "up"}, "kl_direction must be 'reverse' or 'forward', got 'up'"),
        ({"encoder": "new"}, "encoder must be 'frozen' or 'average' or 'current', got 'new'"),
        ({"reduction": "sum"}, "reduction must be 'batch' or 'element', got 'sum'"),
        ({"encoder_decay": 1.5}, "encoder_decay must be between 0 and 1, got 1.5"),
        ({"compatibility_weight": -1}, "compatibility_weight must be 0 or more, got -1"),
        ({"hidden_dim": 0, "generator_start": "random"}, "hidden_dim must be 1 or more"),
        ({"meta_every": 0}, "meta_every must be at least 1, got 0"),
        ({"encoder_mode": "fp8"}, "encoder_mode must be 'exact' or 'folded' or 'bf16', got 'fp8'"),
        ({"encoder_mode": "folded", "encoder": "average"}, "needs encoder='frozen', got 'average'"),
        ({"hidden_dim": 8}, "cannot start from the head.*got 8"),
        ({"kl_direction": "forward", "label_eps": 1e-10}, "label_eps is for .*got 1e-10"),
        ({**STUDENT_FIRST, "meta_weight": 1.0}, "needs virtual_lr='current' and meta_weight=0"),
        ({**STUDENT_FIRST, "virtual_lr": 1.0}, "needs virtual_lr='current' and meta_weight=0"),
        ({**STUDENT_FIRST, "regenerate_labels": True}, "needs regenerate_labels=False, got True"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(
    arguments: dict[str, object], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        MetaLabelNet(network(), C, SGD, META_SGD, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "optimizer",
    [
        torch.optim.Adam,
        functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True),
        functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9, dampening=0.5),
    ],
)
def test_a_step_that_does_not_move_by_its_rate_cannot_be_the_virtual_one(optimizer) -> None:
    model = MetaLabelNet(network(), C, optimizer, META_SGD, **STUDENT_FIRST)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="needs optimizer=SGD without nesterov"):
        model.configure_optimizers()
