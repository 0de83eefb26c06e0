"""Gold loss correction: the meta set estimates the transition matrix, and is trained on too."""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy

from mln_lightning.batch import StepOutput, TrainBatch
from mln_lightning.models.loss_correction import ForwardCorrection


class GoldLossCorrection(ForwardCorrection):
    """Forward correction on the training batch and cross-entropy on the meta batch, together.

    Hendrycks et al., "Using Trusted Data to Train Deep Networks on Labels Corrupted by Severe
    Noise", NeurIPS 2018, algorithm 1, with ``transition="meta"`` and ``restart=True``. The
    arguments are those of `ForwardCorrection`.
    """

    def noisy_step(self, batch: TrainBatch) -> StepOutput:
        """θ ← θ − lr · ∂θ of the mean, over all B + m samples, of −log (p T)_y or −log p_y."""
        train, meta = batch["train"], batch["meta"]
        sizes = [len(train.labels), len(meta.labels)]
        self.shared.weigh(sum(sizes), sizes[1], train.images.device)
        together = self.network(torch.cat([train.images, meta.images]))
        logits, meta_logits = together.split(sizes)
        meta_loss = cross_entropy(meta_logits, meta.labels)
        corrected = self.corrected_loss(logits, train.labels)
        # One of several processes may have no sample of a kind: its mean is not a number.
        means = zip(sizes, (corrected, meta_loss), strict=True)
        total = sum((size * mean for size, mean in means if size), 0 * together.sum())
        loss = total / max(sum(sizes), 1)
        self.descend(loss)
        return {
            "loss": loss.detach(),
            "logits": logits.detach(),
            "meta_loss": meta_loss.detach(),
        }
