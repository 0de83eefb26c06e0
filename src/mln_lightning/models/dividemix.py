"""DivideMix: wrong labels as unlabelled samples (Li, Socher & Hoi, ICLR 2020)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from mln_lightning.batch import UNKNOWN, StepOutput, TrainBatch
from mln_lightning.losses import entropy, prior_kl
from mln_lightning.mixmatch import mixmatch_loss, mixup, sharpen
from mln_lightning.models.base import OptimizerFactory, SchedulerFactory
from mln_lightning.models.two_networks import TwoNetworks
from mln_lightning.networks import evaluating
from mln_lightning.selection import clean_probability


class DivideMix(TwoNetworks):
    """Each network says which labels the other may trust; MixMatch learns from all images.

    Li, Socher & Hoi, "DivideMix: Learning with Noisy Labels as Semi-supervised Learning", ICLR
    2020, algorithm 1. After warm-up a mixture of two normal distributions is fitted to each
    network's losses before every epoch. A sample is labelled for one network if its clean
    probability by the *other* exceeds the threshold, unlabelled if not; one that has no label
    never is.

    Args:
        network: see `NoisyLabelModule`.
        peer: another network of the same kind, with its own initial weights.
        num_classes: C.
        optimizer: parameters of both networks → optimiser.
        scheduler: see `NoisyLabelModule`.
        warmup_epochs: at least 0; both networks.
        warmup_entropy_weight: weight, at least 0, of the negative entropy in the warm-up loss,
            which keeps predictions from becoming certain; the paper takes 1 for asymmetric noise.
        threshold: τ, clean probability above which a sample is labelled, in [0, 1).
        temperature: T of the sharpening, positive.
        alpha: α of mixup's Beta(α, α), positive.
        lambda_u: λ_u, weight of the unlabelled samples' loss, at least 0.
        ramp_epochs: epochs after warm-up in which λ_u grows from 0 to its value, at least 0.

    Raises:
        ValueError: an argument is out of range.
    """

    whole_batch = "it mixes each image with another of the whole batch"
    uses_unlabelled = True  # a sample without a label is one whose label is not trusted

    clean_probability: Tensor

    def __init__(
        self,
        network: nn.Module,
        peer: nn.Module,
        num_classes: int,
        optimizer: OptimizerFactory,
        *,
        scheduler: SchedulerFactory | None = None,
        warmup_epochs: int = 10,
        warmup_entropy_weight: float = 0.0,
        threshold: float = 0.5,
        temperature: float = 0.5,
        alpha: float = 4.0,
        lambda_u: float = 25.0,
        ramp_epochs: int = 16,
    ) -> None:
        super().__init__(
            network, peer, num_classes, optimizer, scheduler=scheduler, warmup_epochs=warmup_epochs
        )
        for name, value, in_range, allowed in (
            (
                "warmup_entropy_weight",
                warmup_entropy_weight,
                warmup_entropy_weight >= 0,
                "0 or more",
            ),
            ("threshold", threshold, 0 <= threshold < 1, "in [0, 1)"),
            ("temperature", temperature, temperature > 0, "positive"),
            ("alpha", alpha, alpha > 0, "positive"),
            ("lambda_u", lambda_u, lambda_u >= 0, "0 or more"),
            ("ramp_epochs", ramp_epochs, ramp_epochs >= 0, "0 or more"),
        ):
            if not in_range:
                raise ValueError(f"{name} must be {allowed}, got {value}.")
        self.warmup_entropy_weight = warmup_entropy_weight
        self.threshold = threshold
        self.temperature = temperature
        self.alpha = alpha
        self.lambda_u = lambda_u
        self.ramp_epochs = ramp_epochs

    def prepare(self, labels: Tensor) -> None:
        """A table ``(2, N)``: the clean probability of every sample by either network."""
        self.register_buffer("clean_probability", torch.zeros(2, len(labels)))

    def warmup_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """cross_entropy(network(x), observed label) − weight · entropy(network(x))."""
        return cross_entropy(logits, labels) - self.warmup_entropy_weight * entropy(logits)

    def on_noisy_epoch(self) -> None:
        """Co-divide: the clean probabilities of the training part, by either network."""
        part = self.data.parts.train
        known = part.labels != UNKNOWN
        index = part.index[known].to(self.device)
        labels = part.labels[known].to(self.device)
        for row, network in enumerate((self.network, self.peer)):
            images = self.data.images_of(part, self.device)
            with evaluating(network):
                logits = torch.cat([network(x) for x in images])
            losses = cross_entropy(logits[known.to(self.device)], labels, reduction="none")
            found = clean_probability(losses).to(self.clean_probability.dtype)
            self.clean_probability[row, index] = found

    def noisy_step(self, batch: TrainBatch) -> StepOutput:
        """Soft labels by co-refinement and co-guessing, then MixMatch, for both networks."""
        train, draws = batch["train"], self.draws()
        views = torch.cat([train.images, self.data.transfer.view(train.index, 1)])
        logits, peer_logits = self._predict(self.network, views), self._predict(self.peer, views)
        own, peer = _mean_of_views(logits), _mean_of_views(peer_logits)
        guessed = sharpen((own + peer) / 2, self.temperature)
        by_own, by_peer = self.clean_probability[:, train.index].to(own.dtype)
        loss, soft_labels = own.new_zeros(()), []
        for network, predicted, clean in (
            (self.network, own, by_peer),
            (self.peer, peer, by_own),
        ):
            labelled = clean > self.threshold
            refined = self._refine(train.labels, clean, predicted)
            soft = torch.where(labelled[:, None], refined, guessed)
            mixed, mixed_soft = mixup(views, soft.repeat(2, 1), self.alpha, draws)
            out = network(mixed)
            loss = loss + prior_kl(out)
            loss = loss + mixmatch_loss(
                out, mixed_soft, labelled.repeat(2), unlabelled_weight=self._unlabelled_weight()
            )
            soft_labels.append(soft)
        self.descend(loss)
        return {
            "loss": loss.detach(),
            "logits": logits[: len(train.labels)],
            "soft_labels": soft_labels[0],
        }

    def _predict(self, network: nn.Module, views: Tensor) -> Tensor:
        with evaluating(network):
            logits: Tensor = network(views)
        return logits

    def _refine(self, labels: Tensor, clean: Tensor, predicted: Tensor) -> Tensor:
        """sharpen(w · one-hot + (1 − w) · p), ``(B, C)``, w the clean probability."""
        given = one_hot(labels.clamp(min=0), self.num_classes)
        weight = clean[:, None]
        return sharpen(weight * given + (1 - weight) * predicted, self.temperature)

    def _unlabelled_weight(self) -> float:
        """λ_u, on its ramp while that lasts."""
        if not self.ramp_epochs:
            return self.lambda_u
        epochs = self.global_step / self.trainer.num_training_batches - self.warmup_epochs
        return self.lambda_u * min(epochs / self.ramp_epochs, 1.0)


def _mean_of_views(logits: Tensor) -> Tensor:
    """``(2B, C)`` logits of two views, one after the other → mean probabilities ``(B, C)``."""
    first, second = logits.softmax(dim=1).chunk(2)
    return (first + second) / 2
