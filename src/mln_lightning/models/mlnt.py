"""MLNT: a network that synthetic label noise does not throw off course (Li et al., CVPR 2019)."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div

from mln_lightning.batch import UNKNOWN, Batch, StepOutput, TrainBatch
from mln_lightning.meta import along, stateless, virtual_update
from mln_lightning.models.base import NoisyLabelModule, OptimizerFactory, SchedulerFactory
from mln_lightning.models.loss_scale import loss_scale, refuse_overflow
from mln_lightning.neighbours import nearest
from mln_lightning.networks import evaluating, features, find_head, follow

NEIGHBOURS = 10


class MLNT(NoisyLabelModule):
    """Cross-entropy, and agreement with a mean teacher after steps on synthetic noisy labels.

    Li, Wong, Zhao & Kankanhalli, CVPR 2019. First order: the gradient of the agreement is taken at
    the virtual parameters and used at θ; how θ' changes with θ is left out. No clean data is used.
    The teacher is what is evaluated.

    Args:
        network: see `NoisyLabelModule`; its last linear layer is the head, whose input the
            neighbours are found by.
        num_classes: see `NoisyLabelModule`.
        optimizer: see `NoisyLabelModule`.
        scheduler: see `NoisyLabelModule`.
        warmup_epochs: at least 0; the neighbours are those of the warmed-up network.
        ramp_epochs: epochs after warm-up in which the weight of the agreement rises, at least 0.
        num_synthetic: synthetic mini-batches M in a step, at least 1; each costs 5 forwards.
        synthetic_rate: share ρ of a mini-batch's labels that are replaced, 0…1.
        virtual_lr: size of the virtual steps, at least 0.
        consistency_weight: weight of the agreement after the rise, at least 0.
        teacher_decay: 0…1; 0 makes the teacher a copy of the network.

    Raises:
        ValueError: an argument is out of range, or the network has no head.
    """

    whole_batch = "its synthetic labels are drawn for a part of the whole batch"

    neighbour_labels: Tensor
    teaching: Tensor

    def __init__(
        self,
        network: nn.Module,
        num_classes: int,
        optimizer: OptimizerFactory,
        *,
        scheduler: SchedulerFactory | None = None,
        warmup_epochs: int = 1,
        ramp_epochs: int = 8,
        num_synthetic: int = 10,
        synthetic_rate: float = 0.5,
        virtual_lr: float = 0.2,
        consistency_weight: float = 1.0,
        teacher_decay: float = 0.99,
    ) -> None:
        super().__init__(
            network, num_classes, optimizer, scheduler=scheduler, warmup_epochs=warmup_epochs
        )
        for name, value, least in (
            ("ramp_epochs", ramp_epochs, 0),
            ("num_synthetic", num_synthetic, 1),
            ("virtual_lr", virtual_lr, 0),
            ("consistency_weight", consistency_weight, 0),
        ):
            if not value >= least:
                raise ValueError(f"{name} must be {least} or more, got {value}.")
        for name, share in (("synthetic_rate", synthetic_rate), ("teacher_decay", teacher_decay)):
            if not 0 <= share <= 1:
                raise ValueError(f"{name} must be from 0 to 1, got {share}.")
        self.ramp_epochs = ramp_epochs
        self.num_synthetic = num_synthetic
        self.synthetic_rate = synthetic_rate
        self.virtual_lr = virtual_lr
        self.consistency_weight = consistency_weight
        self.teacher_decay = teacher_decay
        self.head = find_head(network)
        # Batches of virtual networks leave no trace in the batch-norm statistics.
        self._at_virtual = stateless(network, buffers="copy")
        self.teacher = copy.deepcopy(network).requires_grad_(False).eval()
        # A buffer: weights of an epoch of the warm-up are tested without a teacher.
        self.register_buffer("teaching", torch.tensor(False))

    def prepare(self, labels: Tensor) -> None:
        """Room for the labels of each sample's neighbours ``(N, 10)``.

        Raises:
            ValueError: too few samples have a label.
        """
        known = int((labels != UNKNOWN).sum())
        if known <= NEIGHBOURS:
            raise ValueError(
                f"MLNT looks for {NEIGHBOURS} neighbours of each sample, so more than {NEIGHBOURS} "
                f"training samples must have a label; {known} have one."
            )
        table = torch.full((len(labels), NEIGHBOURS), UNKNOWN)
        self.register_buffer("neighbour_labels", table)

    def on_warmup_end(self) -> None:
        """Find the neighbours of all samples; the teacher starts as the warmed-up network."""
        self.teacher.load_state_dict(self.network.state_dict())
        self.teaching.fill_(True)
        part = self.data.parts.train
        with evaluating(self.network):
            found = [
                features(self.network, self.head, images).float().cpu()
                for images in self.data.images_of(part, self.device)
            ]
        labelled = part.labels != UNKNOWN
        labels = part.labels[labelled]
        near = labels[nearest(torch.cat(found)[labelled], NEIGHBOURS)]
        self.neighbour_labels[part.index[labelled]] = near.to(self.neighbour_labels.device)

    def noisy_step(self, batch: TrainBatch) -> StepOutput:
        """Virtual steps on synthetic labels, their agreement with the teacher, one update of θ."""
        train = batch["train"]
        logits = self.network(train.images)
        consistency, v = self.consistency(train, logits)
        weight = self.consistency_weight * self.ramp()
        loss = cross_entropy(logits, train.labels)
        # θ ← θ - lr [∂θ cross-entropy + w v]: the gradient of ⟨v, θ⟩ is v.
        self.descend(loss + weight * along(dict(self.network.named_parameters()), v))
        follow(self.teacher, self.network, self.teacher_decay)
        return {"loss": loss.detach() + weight * consistency, "logits": logits.detach()}

    def consistency(self, train: Batch, logits: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean over M virtual networks of KL(teacher ‖ virtual network), and of its gradient.

        Args:
            train: the training batch.
            logits: of it at θ ``(B, C)``, with their graph, which is kept.

        Returns:
            The mean ``()``, and by name v, the mean of the gradients at the virtual parameters.
        """
        theta: dict[str, Tensor] = {
            name: p for name, p in self.network.named_parameters() if p.requires_grad
        }
        v = {name: torch.zeros_like(p) for name, p in theta.items()}
        with torch.no_grad():
            target = _log_probabilities(self.teacher(train.images))
        total, draws = torch.zeros_like(target[0, 0]), self.draws()
        for _ in range(self.num_synthetic):
            loss = cross_entropy(logits, self.synthetic_labels(train, draws))
            step = self._gradient(loss, theta, retain_graph=True)
            with torch.no_grad():  # θ' = θ - α ∂θ cross-entropy on the synthetic labels
                virtual = virtual_update(theta, step, self.virtual_lr)
            leaves = {name: p.requires_grad_() for name, p in virtual.items()}
            found = _log_probabilities(self._at_virtual(leaves, train.images))
            apart = kl_div(found, target, reduction="batchmean", log_target=True)
            total += apart.detach() / self.num_synthetic
            grads = self._gradient(apart, leaves)
            torch._foreach_add_(
                list(v.values()), list(grads.values()), alpha=1 / self.num_synthetic
            )
        refuse_overflow(self, v.values())
        return total, v

    def _gradient(
        self, loss: Tensor, at: dict[str, Tensor], *, retain_graph: bool = False
    ) -> dict[str, Tensor]:
        scale = loss_scale(self)
        found = torch.autograd.grad(
            loss * scale, list(at.values()), retain_graph=retain_graph, materialize_grads=True
        )
        return {name: grad / scale for name, grad in zip(at, found, strict=True)}

    def synthetic_labels(self, train: Batch, draws: torch.Generator) -> Tensor:
        """Observed labels ``(B,)``, a share ρ of them replaced by that of a random neighbour."""
        size = len(train.labels)
        chosen = torch.randperm(size, generator=draws)[: int(self.synthetic_rate * size)]
        which = torch.randint(NEIGHBOURS, (len(chosen),), generator=draws)
        labels = train.labels.clone()
        rows, which = (drawn.to(labels.device, non_blocking=True) for drawn in (chosen, which))
        labels[rows] = self.neighbour_labels[train.index[rows], which]
        return labels

    def ramp(self) -> float:
        """exp(-5 (1 - u)²), where u rises from 0 to 1 in the epochs after warm-up; then 1."""
        epochs = self.global_step / self.trainer.num_training_batches - self.warmup_epochs
        u = min(epochs / self.ramp_epochs, 1.0) if self.ramp_epochs else 1.0
        return math.exp(-5 * (1 - u) ** 2)

    def classifier(self) -> nn.Module:
        """The teacher, once there is one."""
        return self.teacher if bool(self.teaching) else self.network


def _log_probabilities(logits: Tensor) -> Tensor:
    # Under autocast they are of half precision, too coarse for a logarithm of a probability.
    return logits.log_softmax(dim=1, dtype=torch.promote_types(logits.dtype, torch.float32))
