"""Learning to reweight: sample weights from one meta gradient (Ren et al., ICML 2018)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mln_lightning import processes
from mln_lightning.batch import StepOutput, TrainBatch
from mln_lightning.meta import Backend, Buffers
from mln_lightning.models.base import OptimizerFactory, SchedulerFactory
from mln_lightning.models.meta_module import MetaModule
from mln_lightning.weights import weights_against


class LearningToReweight(MetaModule):
    """Each step weighs its samples anew: by how much each of them would lower the clean loss.

    Ren, Zeng, Yang & Urtasun, ICML 2018, Algorithm 1. φ are the weights ε of one batch, which start
    at 0; so θ' = θ, and the size of the virtual step drops out when the weights are normalised.
    A batch in which no sample would lower the clean loss is not learned from.

    Args:
        network: see `NoisyLabelModule`.
        num_classes: see `NoisyLabelModule`.
        optimizer: see `NoisyLabelModule`.
        scheduler: see `NoisyLabelModule`.
        warmup_epochs: at least 0; the paper has no warm-up.
        meta_backend: see `MetaModule`.
        meta_buffers: see `MetaModule`.
        lean_memory: see `MetaModule`.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        network: nn.Module,
        num_classes: int,
        optimizer: OptimizerFactory,
        *,
        scheduler: SchedulerFactory | None = None,
        warmup_epochs: int = 0,
        meta_backend: Backend = "jvp",
        meta_buffers: Buffers = "copy",
        lean_memory: bool = False,
    ) -> None:
        super().__init__(
            network,
            num_classes,
            optimizer,
            scheduler=scheduler,
            warmup_epochs=warmup_epochs,
            meta_backend=meta_backend,
            meta_buffers=meta_buffers,
            lean_memory=lean_memory,
        )

    def noisy_step(self, batch: TrainBatch) -> StepOutput:
        """Weights w = max(-∂L_meta/∂ε, 0) / mean;  θ ← θ - lr · ∂θ mean(w_i ℓ_i)."""
        train, meta = batch["train"], batch["meta"]

        def losses(logits: Tensor) -> Tensor:
            return cross_entropy(logits, train.labels, reduction="none")

        eps = train.images.new_zeros(len(train.labels), requires_grad=True)
        step = self.meta_gradient(
            train.images, lambda logits: (eps * losses(logits)).mean(), meta, (eps,)
        )
        weights = weights_against(step.grads[0])
        loss = (weights * losses(step.logits)).mean()
        if not processes.largest(weights):
            return self.report(step, None) | self._no_step()
        self.descend(loss)
        return self.report(step, loss)
