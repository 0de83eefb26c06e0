"""Plain training on the observed labels."""

from __future__ import annotations

from mln_lightning.batch import StepOutput, TrainBatch
from mln_lightning.models.base import NoisyLabelModule


class Supervised(NoisyLabelModule):
    """Cross-entropy on the observed labels throughout; the meta set is ignored."""

    def noisy_step(self, batch: TrainBatch) -> StepOutput:
        """θ ← θ − lr · ∂θ cross_entropy(network(x), observed label)."""
        return self.supervised_step(batch["train"])
