"""A network and batches for one step in float64, and the meta gradient by double backward."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.data import DataLoader

from mln_lightning.batch import Batch as Samples
from mln_lightning.batch import StepOutput, TrainBatch
from mln_lightning.meta import MetaStep
from mln_lightning.models import MetaModule
from tests.models.test_base import Watch, trainer

Parameters = dict[str, Tensor]


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1),
        nn.BatchNorm2d(3),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(48, 3),
    ).double()


def batch(size: int = 7, *, meta: int = 5, seed: int = 1) -> TrainBatch:
    draw = torch.Generator().manual_seed(seed)

    def samples(number: int) -> Samples:
        images = torch.randn(number, 1, 4, 4, generator=draw, dtype=torch.float64)
        labels = torch.randint(3, (number,), generator=draw)
        return Samples(images, labels, torch.full((number,), -1), torch.arange(number))

    return {"train": samples(size), "meta": samples(meta)}


def values(module: nn.Module) -> Parameters:
    return {name: p.detach().clone() for name, p in module.named_parameters()}


def buffers(module: nn.Module) -> Parameters:
    return {name: b.clone() for name, b in module.named_buffers()}


def losses(
    module: nn.Module, at: Parameters, stats: Parameters, images: Tensor, labels: Tensor
) -> Tensor:
    """Cross-entropy of each sample ``(B,)`` at given parameters; ``stats`` change in place."""
    logits = functional_call(module, {**at, **stats}, (images,))
    return -logits.log_softmax(dim=1).gather(1, labels[:, None])[:, 0]


def meta_loss_after(
    module: nn.Module, weigh: Callable[[Tensor], Tensor], given: TrainBatch, lr: float
) -> Tensor:
    """Clean loss after one step of plain SGD on ``weigh(losses)``, with its whole graph."""
    theta = {name: value.requires_grad_() for name, value in values(module).items()}
    train, meta = given["train"], given["meta"]
    loss = weigh(losses(module, theta, buffers(module), train.images, train.labels))
    grads = torch.autograd.grad(loss, list(theta.values()), create_graph=True)
    virtual = {n: p - lr * g for (n, p), g in zip(theta.items(), grads, strict=True)}
    return losses(module, virtual, buffers(module), meta.images, meta.labels).mean()


def momentum_steps(
    theta: Parameters,
    grads: Sequence[Parameters],
    *,
    lr: float,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
) -> Parameters:
    """SGD written out: velocity ← momentum · velocity + gradient + decay · θ."""
    velocity = {name: torch.zeros_like(value) for name, value in theta.items()}
    for grad in grads:
        for name in theta:
            pull = grad[name] + weight_decay * theta[name]
            velocity[name] = momentum * velocity[name] + pull
        theta = {name: value - lr * velocity[name] for name, value in theta.items()}
    return theta


def fit(model: MetaModule, given: Sequence[TrainBatch]) -> tuple[list[StepOutput], list[MetaStep]]:
    """One epoch of real training steps; what they returned, and their meta gradients."""
    steps: list[MetaStep] = []
    real = model._meta_gradient

    def recorded(*args: object, **options: object) -> MetaStep:
        steps.append(real(*args, **options))  # type: ignore[arg-type]
        return steps[-1]

    model._meta_gradient = recorded  # type: ignore[method-assign]
    watch = Watch()
    trainer(1, watch).fit(model, DataLoader(list(given), batch_size=None))  # type: ignore[arg-type]
    model._meta_gradient = real  # type: ignore[method-assign]
    return watch.outputs, steps


def assert_close(found: Parameters, expected: Parameters) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-12, msg=name)
