"""A meta set without clean labels: confident training samples, with their observed labels."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mln_lightning.batch import UNKNOWN, Batch, StepOutput, TrainBatch
from mln_lightning.confident import most_confident
from mln_lightning.data.datamodule import NoisyLabelDataModule
from mln_lightning.networks import evaluating


class ConfidentMeta(nn.Module):
    """Training samples that serve as the meta set and leave the training batches.

    Their images are read anew for every meta batch, in the training process.

    Args:
        number: of samples, at least 1.

    Raises:
        ValueError: the number is not positive.
    """

    rows: Tensor

    def __init__(self, number: int) -> None:
        if number < 1:
            raise ValueError(f"num_confident must be 1 or more, or None, got {number}.")
        super().__init__()
        self.register_buffer("rows", torch.full((number,), UNKNOWN))

    def check(self, data: NoisyLabelDataModule) -> None:
        """Refuse data that would leave nothing to train on.

        Raises:
            ValueError: says how many labelled training samples there are.
        """
        labelled = int((data.parts.train.labels != UNKNOWN).sum())
        if len(self.rows) >= labelled:
            raise ValueError(
                f"num_confident={len(self.rows)} leaves nothing to train on: it must be less than "
                f"the number of labelled training samples, {labelled}."
            )

    def choose(self, network: nn.Module, data: NoisyLabelDataModule, device: torch.device) -> None:
        """Take the samples of lowest cross-entropy with their observed label, class by class.

        Args:
            network: classifier, images → logits.
            data: whose training part is looked at, without augmentation.
            device: of the network.
        """
        part = data.parts.train
        with evaluating(network):
            parts = [network(images) for images in data.images_of(part, device)]
        logits = torch.cat(parts).cpu().double()
        known = (part.labels != UNKNOWN).nonzero().flatten()
        labels = part.labels[known]
        losses = cross_entropy(logits[known], labels, reduction="none")
        chosen = most_confident(losses, labels, len(self.rows))
        self.rows.copy_(part.index[known[chosen]])

    def batches(
        self, batch: TrainBatch, data: NoisyLabelDataModule, draws: torch.Generator
    ) -> tuple[TrainBatch, StepOutput]:
        """The training samples that are left, and a meta batch of chosen samples in place of its.

        Args:
            batch: as the step got it; nothing but the device of its meta batch is looked at.
            data: where the images of the meta batch are read.
            draws: for the meta batch: as large as the training batch was, but no larger than the
                meta set, no sample twice.

        Returns:
            the batch, and ``rows`` of `StepOutput`.
        """
        train, device = batch["train"], batch["train"].images.device
        size = min(len(train.index), len(self.rows))
        drawn = torch.randperm(len(self.rows), generator=draws)[:size]
        read = data.parts.train.source[self.rows.cpu()[drawn]]
        meta = data.transfer.batch(
            Batch(*(column.to(device) for column in read)), train.images.dtype
        )
        left = ~torch.isin(train.index, self.rows)
        kept = Batch(*(column[left] for column in train))
        return TrainBatch(train=kept, meta=meta), {"rows": left}
