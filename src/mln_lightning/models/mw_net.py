"""Meta-Weight-Net: a small network from loss to weight, taught by the meta gradient."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mln_lightning.batch import StepOutput, TrainBatch
from mln_lightning.meta import Backend, Buffers
from mln_lightning.models.base import OptimizerFactory, SchedulerFactory
from mln_lightning.models.meta_module import MetaModule
from mln_lightning.weights import WeightNet


class MetaWeightNet(MetaModule):
    """Weights its samples by their losses, with a weighting that is learned on the meta set.

    Shu et al., NeurIPS 2019, Algorithm 1. The weights are not normalised.

    Args:
        network: see `NoisyLabelModule`.
        num_classes: see `NoisyLabelModule`.
        optimizer: see `NoisyLabelModule`.
        meta_optimizer: parameters → optimiser of the weight net.
        scheduler: see `NoisyLabelModule`.
        warmup_epochs: at least 0; the paper has no warm-up.
        virtual_lr: see `MetaModule`; the paper's is ``current``.
        meta_backend: see `MetaModule`.
        meta_buffers: see `MetaModule`.
        meta_every: see `MetaModule`.
        lean_memory: see `MetaModule`.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        network: nn.Module,
        num_classes: int,
        optimizer: OptimizerFactory,
        meta_optimizer: OptimizerFactory,
        *,
        scheduler: SchedulerFactory | None = None,
        warmup_epochs: int = 0,
        virtual_lr: float | Literal["current"] = "current",
        meta_backend: Backend = "jvp",
        meta_buffers: Buffers = "copy",
        meta_every: int = 1,
        lean_memory: bool = False,
    ) -> None:
        super().__init__(
            network,
            num_classes,
            optimizer,
            meta_optimizer,
            scheduler=scheduler,
            warmup_epochs=warmup_epochs,
            virtual_lr=virtual_lr,
            meta_backend=meta_backend,
            meta_buffers=meta_buffers,
            meta_every=meta_every,
            lean_memory=lean_memory,
        )
        self.weight_net = WeightNet()

    def noisy_step(self, batch: TrainBatch) -> StepOutput:
        """The paper's iteration: virtual update, step of the weight net, weighted update."""
        train, meta = batch["train"], batch["meta"]

        def losses(logits: Tensor) -> Tensor:
            return cross_entropy(logits, train.labels, reduction="none")

        def weighted(logits: Tensor) -> Tensor:
            each = losses(logits)
            loss: Tensor = (self.weight_net(each.detach()) * each).mean()
            return loss

        # θ' = θ - α ∂θ mean(w_i ℓ_i);  φ ← φ - β ∂φ L_meta(θ')
        step = self.meta_step(train.images, weighted, meta)
        each = losses(step.logits)
        weights = self.weight_net(each.detach()).detach()  # with the updated φ
        loss = (weights * each).mean()  # θ ← θ - lr · ∂θ mean(w_i ℓ_i)
        self.descend(loss)
        return self.report(step, loss)

    def meta_parameters(self) -> Iterable[nn.Parameter]:
        """Those of the weight net."""
        return self.weight_net.parameters()
