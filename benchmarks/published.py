"""MetaLabelNet's step as the authors' code takes it (Algan & Ulusoy, IEEE TIP 2022)."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from benchmarks.steps import ADAM, SGD
from mln_lightning.batch import TrainBatch
from mln_lightning.networks import features, find_head, head_of


class PublishedStep:
    """One backward through everything, in plain torch and apart from the library's meta gradient.

    The encoder's features keep their graph, the meta loss is differentiated through the virtual
    step into all parameters, losses are means over samples and classes with 1e-10 inside the
    label's logarithm, and the meta forward updates the network's own batch-norm statistics.

    Attributes:
        soft_labels: ``(B, C)`` those that the network has learnt from last.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.encoder = copy.deepcopy(network).eval()
        self.head = find_head(network)
        head = head_of(network, self.head)
        self.generator = nn.Linear(head.in_features, head.out_features).to(head.weight)
        self.optimizer = SGD(network.parameters())
        self.meta_optimizer = ADAM(self.generator.parameters())
        self.soft_labels = torch.empty(0)
        self.modules: list[nn.Module] = [network, self.encoder, self.generator]
        self.optimizers: list[torch.optim.Optimizer] = [self.optimizer, self.meta_optimizer]

    def __call__(self, batch: TrainBatch) -> Tensor:
        train, meta = batch["train"], batch["meta"]
        params = dict(self.network.named_parameters())
        logits = self.network(train.images)
        seen = features(self.encoder, self.head, train.images)
        soft = self.generator(seen).softmax(dim=1)

        grads = torch.autograd.grad(_kl(logits, soft), list(params.values()), create_graph=True)
        virtual = {name: p - g for (name, p), g in zip(params.items(), grads, strict=True)}
        meta_loss = cross_entropy(self._logits(virtual, meta.images), meta.labels)
        self.meta_optimizer.zero_grad()
        # Fills the gradients of the network and of the encoder too; nobody reads those. The graph
        # of the logits is needed once more.
        meta_loss.backward(retain_graph=True)
        self.meta_optimizer.step()

        self.soft_labels = soft = self.generator(seen).softmax(dim=1).detach()
        log_p = logits.log_softmax(dim=1)
        loss = _kl(logits, soft) - (log_p.exp() * log_p).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def _logits(self, params: Mapping[str, Tensor], images: Tensor) -> Tensor:
        logits: Tensor = functional_call(self.network, dict(params), (images,))
        return logits


def _kl(logits: Tensor, soft: Tensor) -> Tensor:
    log_p = logits.log_softmax(dim=1)
    return (log_p.exp() * (log_p - (soft + 1e-10).log())).mean()
