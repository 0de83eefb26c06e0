"""Co-teaching+: co-teaching on what the networks disagree about (Yu et al., ICML 2019)."""

from __future__ import annotations

from torch import Tensor, nn

from mln_lightning.models.base import OptimizerFactory, SchedulerFactory
from mln_lightning.models.coteaching import CoTeaching


class CoTeachingPlus(CoTeaching):
    """Co-teaching among the samples for which the two networks predict different classes.

    Yu, Han, Yao, Niu, Tsang & Sugiyama, "How does Disagreement Help Generalization against Label
    Corruption?", ICML 2019, algorithm 1. The first epochs are co-teaching on the whole batch, and
    so is a step whose batch has no disagreement.

    Args:
        network: see `CoTeaching`.
        peer: see `CoTeaching`.
        num_classes: C.
        optimizer: see `CoTeaching`.
        forget_rate: see `CoTeaching`.
        scheduler: see `NoisyLabelModule`.
        ramp_epochs: see `CoTeaching`.
        coteaching_epochs: initial epochs of co-teaching, at least 0.

    Raises:
        ValueError: an argument is out of range, or there is no forget rate.
    """

    def __init__(
        self,
        network: nn.Module,
        peer: nn.Module,
        num_classes: int,
        optimizer: OptimizerFactory,
        forget_rate: float | None,
        *,
        scheduler: SchedulerFactory | None = None,
        ramp_epochs: int = 10,
        coteaching_epochs: int = 0,
    ) -> None:
        super().__init__(
            network,
            peer,
            num_classes,
            optimizer,
            forget_rate,
            scheduler=scheduler,
            ramp_epochs=ramp_epochs,
        )
        if coteaching_epochs < 0:
            raise ValueError(f"coteaching_epochs must be 0 or more, got {coteaching_epochs}.")
        self.coteaching_epochs = coteaching_epochs

    def candidates(self, logits: Tensor, peer_logits: Tensor) -> Tensor:
        """``(B, C)`` of both networks → ``(n,)`` rows they disagree about, all if there is none."""
        if self.current_epoch >= self.coteaching_epochs:
            disagreed = (logits.argmax(dim=1) != peer_logits.argmax(dim=1)).nonzero()[:, 0]
            if len(disagreed):
                return disagreed
        return super().candidates(logits, peer_logits)
