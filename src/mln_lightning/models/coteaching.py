"""Co-teaching: two networks pick samples for each other (Han et al., NeurIPS 2018)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mln_lightning.batch import StepOutput, TrainBatch
from mln_lightning.models.base import OptimizerFactory, SchedulerFactory
from mln_lightning.models.two_networks import TwoNetworks
from mln_lightning.selection import keep_rate, small_loss


class CoTeaching(TwoNetworks):
    """Each network is trained on the samples of the batch whose loss is small in the other.

    Han, Yao, Yu, Niu, Xu, Hu, Tsang & Sugiyama, "Co-teaching: Robust Training of Deep Neural
    Networks with Extremely Noisy Labels", NeurIPS 2018, algorithm 1. The share of the batch that
    is kept falls from 1 to 1 − τ over the first T_k epochs.

    Args:
        network: see `NoisyLabelModule`.
        peer: another network of the same kind, with its own initial weights.
        num_classes: C.
        optimizer: parameters of both networks → optimiser.
        forget_rate: τ, share of every batch that is left out in the end, in [0, 1); the fraction of
            wrong labels, known or guessed. None is refused with a sentence that asks for it.
        scheduler: see `NoisyLabelModule`.
        ramp_epochs: T_k, at least 0.

    Raises:
        ValueError: an argument is out of range, or there is no forget rate.
    """

    whole_batch = "its networks choose small losses among the whole batch"

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
    ) -> None:
        super().__init__(network, peer, num_classes, optimizer, scheduler=scheduler)
        if forget_rate is None:
            raise ValueError(
                "forget_rate must be known and this noise does not tell it; give the expected "
                "fraction of wrong labels as model.forget_rate, in [0, 1)."
            )
        if not 0 <= forget_rate < 1:
            raise ValueError(f"forget_rate must be in [0, 1), got {forget_rate}.")
        if ramp_epochs < 0:
            raise ValueError(f"ramp_epochs must be 0 or more, got {ramp_epochs}.")
        self.forget_rate = forget_rate
        self.ramp_epochs = ramp_epochs

    def noisy_step(self, batch: TrainBatch) -> StepOutput:
        """Both losses; each network's small ones choose what the other learns from."""
        train = batch["train"]
        logits, peer_logits = self.network(train.images), self.peer(train.images)
        rows = self.candidates(logits.detach(), peer_logits.detach())
        losses, peer_losses = (
            cross_entropy(o, train.labels, reduction="none")[rows] for o in (logits, peer_logits)
        )
        rate = keep_rate(
            self.current_epoch, forget_rate=self.forget_rate, ramp_epochs=self.ramp_epochs
        )
        chosen, peer_chosen = small_loss(losses, rate), small_loss(peer_losses, rate)
        # θ₁ ← θ₁ − lr · ∂ mean ℓ₁ over the peer's choice, θ₂ likewise over the first network's.
        loss = losses[peer_chosen].mean() + peer_losses[chosen].mean()
        self.descend(loss)
        return {"loss": loss.detach(), "logits": logits.detach()}

    def candidates(self, logits: Tensor, peer_logits: Tensor) -> Tensor:
        """``(B, C)`` of both networks → ``(n,)`` rows among which they choose: the whole batch."""
        return torch.arange(len(logits), device=logits.device)
