"""Meta problems with three kinds of φ, and the meta gradient written out in full."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from mln_lightning.losses import reverse_kl
from mln_lightning.meta import Backend, MetaStep, meta_step, stateless


def smooth_network(dtype: torch.dtype = torch.float64) -> nn.Module:
    """Every operator that matters, no kinks: convolution, batch-norm, dropout, linear."""
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1),
        nn.BatchNorm2d(3),
        nn.Tanh(),
        nn.Dropout(0.2),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(12, 5),
        nn.Softplus(),
        nn.Linear(5, 3),
    ).to(dtype)


@dataclass
class Problem:
    network: nn.Module
    images: Tensor
    meta_images: Tensor
    meta_labels: Tensor
    wrt: tuple[Tensor, ...]
    head_loss: Callable[[Tensor], Tensor]

    def step(self, backend: Backend, lr: float = 0.7, **options) -> MetaStep:
        meta_network = stateless(self.network)
        return meta_step(
            options.pop("network", None) or stateless(self.network, buffers="share"),
            dict(self.network.named_parameters()),
            self.images,
            self.head_loss,
            lambda p: cross_entropy(meta_network(p, self.meta_images), self.meta_labels),
            self.wrt,
            lr=lr,
            backend=backend,
            **options,
        )

    def meta_loss(self, lr: float, *, create_graph: bool = False) -> Tensor:
        """The whole procedure, differentiable in φ; draws as one training and one meta forward."""
        params = dict(self.network.named_parameters())
        loss = self.head_loss(self._logits(params, self.images))
        grads = torch.autograd.grad(loss, list(params.values()), create_graph=create_graph)
        virtual = {n: p - lr * g for (n, p), g in zip(params.items(), grads, strict=True)}
        return cross_entropy(self._logits(virtual, self.meta_images), self.meta_labels)

    def gradient(self, lr: float = 0.7) -> tuple[Tensor, ...]:
        return torch.autograd.grad(self.meta_loss(lr, create_graph=True), self.wrt)

    def numerical_gradient(self, seed: int, lr: float = 0.7, step: float = 1e-5) -> list[Tensor]:
        """Differences of the meta loss in every entry of φ."""
        grads = [torch.zeros_like(t) for t in self.wrt]
        for tensor, grad in zip(self.wrt, grads, strict=True):
            flat, out = tensor.data.view(-1), grad.view(-1)
            for i in range(len(flat)):
                ends = []
                for sign in (1, -1):
                    flat[i] += sign * step
                    torch.manual_seed(seed)
                    ends.append(self.meta_loss(lr).item())
                    flat[i] -= sign * step
                out[i] = (ends[0] - ends[1]) / (2 * step)
        return grads

    def _logits(self, params: dict[str, Tensor], images: Tensor) -> Tensor:
        buffers = {n: b.clone() for n, b in self.network.named_buffers()}
        return functional_call(self.network, {**params, **buffers}, (images,))


def problem(kind: str, network: nn.Module | None = None, *, size: int = 6, seed: int = 0, **shape):
    """A problem whose φ is a ``generator``, a label ``table`` or sample ``weights``."""
    network = network or smooth_network()
    dtype = next(network.parameters()).dtype
    image, classes = shape.get("image", (2, 4, 4)), shape.get("classes", 3)
    draw = torch.Generator().manual_seed(seed)

    def normal(*sizes: int) -> Tensor:
        return torch.randn(*sizes, generator=draw, dtype=torch.float64).to(dtype)

    images, meta_images = normal(size, *image), normal(size + 1, *image)
    meta_labels = torch.randint(classes, (size + 1,), generator=draw)
    if kind == "generator":
        seen = normal(size, 4)
        wrt = (normal(classes, 4).requires_grad_(), normal(classes).requires_grad_())

        def head_loss(logits: Tensor) -> Tensor:
            return reverse_kl(logits, (seen @ wrt[0].T + wrt[1]).log_softmax(dim=1))

    elif kind == "table":
        wrt = (normal(size, classes).requires_grad_(),)

        def head_loss(logits: Tensor) -> Tensor:
            return cross_entropy(logits, wrt[0].softmax(dim=1))

    else:
        labels = torch.randint(classes, (size,), generator=draw)
        wrt = (normal(size).requires_grad_(),)

        def head_loss(logits: Tensor) -> Tensor:
            return (wrt[0].sigmoid() * cross_entropy(logits, labels, reduction="none")).mean()

    return Problem(network, images, meta_images, meta_labels, wrt, head_loss)


def relative(found, expected) -> float:
    """Length of the difference over the length of the expected, all tensors together."""
    difference = sum((f - e).pow(2).sum() for f, e in zip(found, expected, strict=True))
    return (difference / sum(e.pow(2).sum() for e in expected)).sqrt().item()
