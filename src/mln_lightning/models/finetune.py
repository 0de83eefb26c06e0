"""Warm-up on the observed labels, then training on the clean meta set alone."""

from __future__ import annotations

from torch.nn.functional import cross_entropy

from mln_lightning.batch import StepOutput, TrainBatch
from mln_lightning.models.base import NoisyLabelModule


class Finetune(NoisyLabelModule):
    """After warm-up, every step is a cross-entropy step on the meta batch.

    With ``warmup_epochs=0`` this is training on the clean meta set alone (``model=clean_only``).
    """

    uses_unlabelled = True  # it looks at no training image

    def noisy_step(self, batch: TrainBatch) -> StepOutput:
        """θ ← θ − lr · ∂θ cross_entropy(network(x_meta), clean label)."""
        meta = batch["meta"]
        # Processes have their parts of the meta batch, not of the training batch.
        self.shared.weigh(len(meta.index), len(meta.index), meta.images.device)
        loss = cross_entropy(self.network(meta.images), meta.labels)
        self.descend(loss)
        return {"loss": loss.detach()}
