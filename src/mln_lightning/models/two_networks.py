"""What methods share that train two networks side by side."""

from __future__ import annotations

import itertools
from abc import ABC
from collections.abc import Iterable

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mln_lightning.batch import StepOutput, TrainBatch
from mln_lightning.meta import COMPILER, compile_network
from mln_lightning.models.base import NoisyLabelModule, OptimizerFactory, SchedulerFactory


class TwoNetworks(NoisyLabelModule, ABC):
    """Adds a second network with its own initial weights; one optimiser updates both.

    The losses of the two have nothing in common, so a step on their sum is a step of each. The
    first network is the one that is evaluated and exported.

    Args:
        network: see `NoisyLabelModule`.
        peer: another network of the same kind.
        num_classes: see `NoisyLabelModule`.
        optimizer: parameters of both → optimiser.
        scheduler: see `NoisyLabelModule`.
        warmup_epochs: see `NoisyLabelModule`; both networks warm up.

    Raises:
        ValueError: an argument is out of range, or both networks are the same.
    """

    def __init__(
        self,
        network: nn.Module,
        peer: nn.Module,
        num_classes: int,
        optimizer: OptimizerFactory,
        *,
        scheduler: SchedulerFactory | None = None,
        warmup_epochs: int = 0,
    ) -> None:
        super().__init__(
            network, num_classes, optimizer, scheduler=scheduler, warmup_epochs=warmup_epochs
        )
        if peer is network:
            raise ValueError("peer must be a network of its own, got the first network again.")
        self.peer = peer

    def trained_parameters(self) -> Iterable[nn.Parameter]:
        """Those of both networks."""
        return itertools.chain(self.network.parameters(), self.peer.parameters())

    def compile_pieces(self, batch: TrainBatch, backend: str = COMPILER) -> None:
        """Both networks."""
        super().compile_pieces(batch, backend)
        compile_network(self.peer, batch["train"].images, backend)

    def warmup_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Loss ``()`` of one network in a warm-up step: cross-entropy on the observed labels."""
        return cross_entropy(logits, labels)

    def _warmup_step(self, batch: TrainBatch) -> StepOutput:
        train = batch["train"]
        logits, peer_logits = self.network(train.images), self.peer(train.images)
        losses = [self.warmup_loss(o, train.labels) for o in (logits, peer_logits)]
        loss = losses[0] + losses[1]
        self.descend(loss)
        return {"loss": loss.detach(), "logits": logits.detach()}
