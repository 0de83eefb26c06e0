"""The steps that are compared: plain training, MetaLabelNet's, and the published form of it.

Each step class owns a network and its optimisers, so that a call is one complete training step.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from mln_lightning.labels import LabelGenerator
from mln_lightning.losses import entropy, reverse_kl
from mln_lightning.meta import Backend, Buffers, meta_step, stateless
from mln_lightning.networks.head import features, find_head, head_of


class Data:
    """Random training and meta batch of one size.

    Args:
        shape: (K, H, W).
        size: B of both batches.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        size: int,
        num_classes: int = 10,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        generator = torch.Generator().manual_seed(0)

        def images() -> Tensor:
            return torch.randn(size, *shape, generator=generator).to(device, dtype)

        def labels() -> Tensor:
            return torch.randint(num_classes, (size,), generator=generator).to(device)

        self.images, self.labels = images(), labels()
        self.meta_images, self.meta_labels = images(), labels()

    def tensors(self) -> list[Tensor]:
        return [self.images, self.labels, self.meta_images, self.meta_labels]


def _sgd(network: nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4)


def _adam(generator: nn.Module) -> torch.optim.Adam:
    return torch.optim.Adam(generator.parameters(), lr=1e-2, weight_decay=1e-4)


class PlainStep:
    """One step of ordinary training with cross-entropy."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.optimizer = _sgd(network)

    def __call__(self, data: Data) -> Tensor:
        self.optimizer.zero_grad()
        loss = cross_entropy(self.network(data.images), data.labels)
        loss.backward()
        self.optimizer.step()
        return loss.detach()


class MetaLabelNetStep:
    """One step of MetaLabelNet's second stage, with the library's meta gradient."""

    def __init__(
        self,
        network: nn.Module,
        backend: Backend = "jvp",
        *,
        meta_buffers: Buffers = "copy",
        virtual_lr: float = 1.0,
    ) -> None:
        self.network = network
        self.encoder = copy.deepcopy(network).eval().requires_grad_(False)
        self.head = find_head(network)
        head = head_of(network, self.head)
        self.generator = LabelGenerator(head.in_features, head.out_features).to(head.weight)
        self.optimizer, self.meta_optimizer = _sgd(network), _adam(self.generator)
        self.params = dict(network.named_parameters())
        self.forward = stateless(network, buffers="share")
        self.meta_forward = stateless(network, buffers=meta_buffers)
        self.backend = backend
        self.virtual_lr = virtual_lr

    def __call__(self, data: Data) -> Tensor:
        with torch.no_grad():
            seen = features(self.encoder, self.head, data.images)
        step = meta_step(
            self.forward,
            self.params,
            data.images,
            lambda logits: reverse_kl(logits, self.generator(seen)),
            lambda params: cross_entropy(
                self.meta_forward(params, data.meta_images), data.meta_labels
            ),
            tuple(self.generator.parameters()),
            lr=self.virtual_lr,
            backend=self.backend,
        )
        for parameter, grad in zip(self.generator.parameters(), step.grads, strict=True):
            parameter.grad = grad
        self.meta_optimizer.step()
        self.meta_optimizer.zero_grad()

        soft = self.generator(seen).detach()
        loss = reverse_kl(step.logits, soft) + entropy(step.logits)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.detach()


class PublishedStep:
    """The same step as the authors' code takes it, transcribed: one backward through everything.

    The encoder's features keep their graph, the meta loss is differentiated through the virtual
    step into all parameters, losses are means over samples and classes with 1e-10 inside the
    label's logarithm, and the meta forward updates the network's own batch-norm statistics.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.encoder = copy.deepcopy(network).eval()
        self.head = find_head(network)
        head = head_of(network, self.head)
        self.generator = nn.Linear(head.in_features, head.out_features).to(head.weight)
        self.optimizer, self.meta_optimizer = _sgd(network), _adam(self.generator)

    def __call__(self, data: Data) -> Tensor:
        params = dict(self.network.named_parameters())
        logits = self.network(data.images)
        seen = features(self.encoder, self.head, data.images)
        soft = self.generator(seen).softmax(dim=1)

        grads = torch.autograd.grad(
            _published_kl(logits, soft), list(params.values()), create_graph=True
        )
        virtual = {name: p - g for (name, p), g in zip(params.items(), grads, strict=True)}
        meta_loss = cross_entropy(self._meta_logits(virtual, data.meta_images), data.meta_labels)
        self.meta_optimizer.zero_grad()
        # Fills the gradients of the network and of the encoder too; nobody reads those. The graph
        # of the logits is needed once more.
        meta_loss.backward(retain_graph=True)
        self.meta_optimizer.step()

        soft = self.generator(seen).softmax(dim=1).detach()
        log_p = logits.log_softmax(dim=1)
        loss = _published_kl(logits, soft) - (log_p.exp() * log_p).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def _meta_logits(self, virtual: Mapping[str, Tensor], images: Tensor) -> Tensor:
        logits: Tensor = functional_call(self.network, dict(virtual), (images,))
        return logits


def _published_kl(logits: Tensor, soft: Tensor) -> Tensor:
    log_p = logits.log_softmax(dim=1)
    return (log_p.exp() * (log_p - (soft + 1e-10).log())).mean()
