"""MetaLabelNet: a label generator trained by the meta gradient (Algan & Ulusoy, IEEE TIP 2022)."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from mln_lightning.batch import StepOutput, TrainBatch
from mln_lightning.labels import LabelGenerator
from mln_lightning.losses import Reduction, entropy, reverse_kl
from mln_lightning.meta import Backend, Buffers
from mln_lightning.models.base import OptimizerFactory, SchedulerFactory
from mln_lightning.models.meta_module import MetaModule
from mln_lightning.networks import features, find_head, head_of


class MetaLabelNet(MetaModule):
    """Soft labels from a single linear layer on frozen features, taught by a clean meta set.

    The paper's α is ``virtual_lr``, its β the learning rate of ``meta_optimizer``.

    Args:
        network: see `NoisyLabelModule`; its last linear layer is the head.
        num_classes: C.
        optimizer: see `NoisyLabelModule`.
        meta_optimizer: parameters → optimiser of the label generator.
        scheduler: see `NoisyLabelModule`.
        warmup_epochs: at least 0.
        virtual_lr: size of the virtual step; acts together with ``reduction``.
        entropy_weight: weight λ, at least 0, of the prediction's entropy in the conventional loss.
            With 1 that loss is a reverse cross-entropy, whose gradient vanishes where the network
            is sure, right or wrong.
        meta_weight: weight w, at least 0, of the clean batch in the conventional update, by the
            meta loss's gradient at θ', which the meta step has computed anyway; 0 = published.
        reduction: ``batch`` or ``element`` (published code; C times smaller), for both losses.
        label_eps: inside the logarithm of the soft label; the published code uses 1e-10.
        generator_start: ``head`` copies the warmed-up head into the label generator, ``random``
            leaves it as initialised (published code).
        head: dotted name of the network's last linear layer; None finds it.
        meta_backend: see `MetaModule`.
        meta_buffers: see `MetaModule`.

    Raises:
        ValueError: an argument is out of range, or the head is not found.
    """

    uses_unlabelled = True  # observed labels are in no loss

    def __init__(
        self,
        network: nn.Module,
        num_classes: int,
        optimizer: OptimizerFactory,
        meta_optimizer: OptimizerFactory,
        *,
        scheduler: SchedulerFactory | None = None,
        warmup_epochs: int = 1,
        virtual_lr: float = 1.0,
        entropy_weight: float = 1.0,
        meta_weight: float = 1.0,
        reduction: Reduction = "batch",
        label_eps: float = 0.0,
        generator_start: Literal["head", "random"] = "head",
        head: str | None = None,
        meta_backend: Backend = "jvp",
        meta_buffers: Buffers = "copy",
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
        )
        for name, value in (
            ("entropy_weight", entropy_weight),
            ("meta_weight", meta_weight),
        ):
            if value < 0:
                raise ValueError(f"{name} must be 0 or more, got {value}.")
        if reduction not in get_args(Reduction):
            raise ValueError(
                f"reduction must be one of {', '.join(get_args(Reduction))}, got {reduction!r}."
            )
        if generator_start not in ("head", "random"):
            raise ValueError(
                f"generator_start must be 'head' or 'random', got {generator_start!r}."
            )
        self.entropy_weight = entropy_weight
        self.meta_weight = meta_weight
        self.reduction: Reduction = reduction
        self.label_eps = label_eps
        self.generator_start = generator_start
        self.head = find_head(network, head)
        # Present from the start and loaded at the end of warm-up: checkpoints have the same keys
        # in every epoch.
        self.encoder = copy.deepcopy(network).requires_grad_(False).eval()
        self.generator = LabelGenerator(head_of(network, self.head).in_features, num_classes)

    def noisy_step(self, batch: TrainBatch) -> StepOutput:
        """The paper's iteration: virtual update, meta loss, label update, conventional update."""
        train, meta = batch["train"], batch["meta"]
        encoded = self.encode(train.images)
        step = self.meta_step(  # θ' = θ − α ∂θ KL(p ‖ ŷ);  φ ← φ − β ∂φ L_meta(θ')
            train.images, lambda logits: self._fit(logits, self.generator(encoded)), meta
        )
        log_soft = self.generator(encoded).detach()  # regenerated with the updated φ
        loss = self._fit(step.logits, log_soft)
        loss = loss + self.entropy_weight * entropy(step.logits, reduction=self.reduction)
        # θ ← θ − lr [∂θ (KL(p ‖ ŷ) + λ H(p)) + w v]: the gradient of ⟨v, θ⟩ is v.
        self.descend(loss + self.meta_weight * self.along(step.virtual_grads))
        return {
            "loss": loss.detach(),
            "logits": step.logits.detach(),
            "soft_labels": log_soft.exp(),
            "meta_loss": step.meta_loss,
        }

    def _fit(self, logits: Tensor, log_soft: Tensor) -> Tensor:
        return reverse_kl(logits, log_soft, reduction=self.reduction, label_eps=self.label_eps)

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """``(B, K, H, W)`` → frozen features ``(B, F)``, the input of the encoder's head."""
        return features(self.encoder, self.head, images)

    @torch.no_grad()
    def soft_labels(self, images: Tensor) -> Tensor:
        """``(B, K, H, W)`` → soft labels ``(B, C)`` of the label generator, probabilities."""
        soft: Tensor = self.generator(self.encode(images)).exp()
        return soft

    def on_warmup_end(self) -> None:
        """Freeze the warmed-up network as the encoder; start the label generator."""
        self.encoder.load_state_dict(self.network.state_dict())
        if self.generator_start == "head":
            self.generator.start_from(head_of(self.network, self.head))

    def meta_parameters(self) -> Iterable[nn.Parameter]:
        """W and b of the label generator."""
        return self.generator.parameters()
