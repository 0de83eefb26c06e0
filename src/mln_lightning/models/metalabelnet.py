"""MetaLabelNet: a label generator trained by the meta gradient (Algan & Ulusoy, IEEE TIP 2022)."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from mln_lightning.batch import StepOutput, TrainBatch
from mln_lightning.labels import LabelGenerator
from mln_lightning.losses import Reduction, compatibility, entropy, forward_kl, reverse_kl
from mln_lightning.meta import COMPILER, Backend, Buffers, is_compiled
from mln_lightning.models.base import OptimizerFactory, SchedulerFactory
from mln_lightning.models.confident_meta import ConfidentMeta
from mln_lightning.models.meta_module import MetaModule, moves_by_lr
from mln_lightning.networks import (
    InferenceFeatures,
    InferenceMode,
    find_head,
    follow,
    head_of,
)

Order = Literal["virtual_first", "student_first"]
"""``virtual_first``: a virtual step, then φ, then the real step. ``student_first``: the real step,
which is the virtual one too, then φ."""

Divergence = Literal["reverse", "forward"]
"""``reverse``: KL(p ‖ ŷ). ``forward``: KL(ŷ ‖ p), with the gradients of a cross-entropy."""

Encoder = Literal["frozen", "average", "current"]
"""Whose features the label generator sees: those of the network after warm-up, of its moving
average since, or of the network itself."""

Start = Literal["head", "random"]
"""What the label generator starts from."""


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
        order: see `Order`. ``student_first`` is that of EMLC (Taraday & Baskin, ICCV 2023); it
            needs ``virtual_lr="current"``, ``meta_weight=0``, ``regenerate_labels=False``, and an
            SGD whose step moves by −lr times the gradient.
        virtual_lr: size of the virtual step; acts together with ``reduction``.
        kl_direction: see `Divergence`.
        entropy_weight: weight λ, at least 0, of the prediction's entropy in the conventional loss.
            With 1 that loss is a reverse cross-entropy, whose gradient vanishes where the network
            is sure, right or wrong.
        meta_weight: weight w, at least 0, of the clean batch in the conventional update, by the
            meta loss's gradient at θ', which the meta step has computed anyway; 0 = published.
        compatibility_weight: weight γ, at least 0, of the soft labels' cross-entropy with the
            observed labels in the meta objective; 0 = published.
        reduction: ``batch`` or ``element`` (published code; C times smaller), for both losses.
        label_eps: inside the logarithm of the soft label, at least 0, for ``reverse`` only; the
            published code uses 1e-10.
        regenerate_labels: the conventional step sees the soft labels of the updated generator;
            else those that the virtual step saw.
        generator_start: ``head`` copies the warmed-up head into the label generator, ``random``
            leaves it as initialised (published code).
        hidden_dim: see `LabelGenerator`; needs ``generator_start="random"``.
        encoder: see `Encoder`.
        encoder_decay: of the moving average in every step, 0…1.
        encoder_mode: see `InferenceMode`; ``folded`` needs ``encoder="frozen"``.
        num_confident: None for a clean meta set; else none is looked at, and so many training
            samples take its place after warm-up, see `ConfidentMeta`.
        head: dotted name of the network's last linear layer; None finds it.
        meta_backend: see `MetaModule`.
        meta_buffers: see `MetaModule`.
        meta_every: see `MetaModule`.
        lean_memory: see `MetaModule`.

    Raises:
        ValueError: an argument is out of range, two contradict each other, or the head is not
            found.
    """

    uses_unlabelled = True  # at most `compatibility` looks at observed labels

    def __init__(
        self,
        network: nn.Module,
        num_classes: int,
        optimizer: OptimizerFactory,
        meta_optimizer: OptimizerFactory,
        *,
        scheduler: SchedulerFactory | None = None,
        warmup_epochs: int = 1,
        order: Order = "virtual_first",
        virtual_lr: float | Literal["current"] = 1.0,
        kl_direction: Divergence = "reverse",
        entropy_weight: float = 1.0,
        meta_weight: float = 1.0,
        compatibility_weight: float = 0.0,
        reduction: Reduction = "batch",
        label_eps: float = 0.0,
        regenerate_labels: bool = True,
        generator_start: Start = "head",
        hidden_dim: int | None = None,
        encoder: Encoder = "frozen",
        encoder_decay: float = 0.999,
        encoder_mode: InferenceMode = "exact",
        num_confident: int | None = None,
        head: str | None = None,
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
        for name, value in (
            ("entropy_weight", entropy_weight),
            ("meta_weight", meta_weight),
            ("compatibility_weight", compatibility_weight),
            ("label_eps", label_eps),
        ):
            if value < 0:
                raise ValueError(f"{name} must be 0 or more, got {value}.")
        for name, choice, allowed in (
            ("order", order, Order),
            ("kl_direction", kl_direction, Divergence),
            ("reduction", reduction, Reduction),
            ("generator_start", generator_start, Start),
            ("encoder", encoder, Encoder),
            ("encoder_mode", encoder_mode, InferenceMode),
        ):
            if choice not in get_args(allowed):
                options = " or ".join(map(repr, get_args(allowed)))
                raise ValueError(f"{name} must be {options}, got {choice!r}.")
        if not 0 <= encoder_decay <= 1:
            raise ValueError(f"encoder_decay must be between 0 and 1, got {encoder_decay}.")
        if order == "student_first" and (virtual_lr != "current" or meta_weight):
            raise ValueError(
                "order='student_first' takes the real step as the virtual one, before the clean "
                "gradient is known: it needs virtual_lr='current' and meta_weight=0, got "
                f"{virtual_lr!r} and {meta_weight}."
            )
        if order == "student_first" and regenerate_labels:
            raise ValueError(
                "order='student_first' trains on soft labels made before the generator's step: it "
                "needs regenerate_labels=False, got True."
            )
        if encoder_mode == "folded" and encoder != "frozen":
            raise ValueError(
                "encoder_mode='folded' folds the batch-norm of a network that does not change: it "
                f"needs encoder='frozen', got {encoder!r}."
            )
        if kl_direction == "forward" and label_eps:
            raise ValueError(
                f"label_eps is for kl_direction='reverse' and must be 0 otherwise, got {label_eps}."
            )
        if hidden_dim is not None and generator_start == "head":
            raise ValueError(
                "A label generator with a hidden layer cannot start from the head: use "
                f"generator_start='random' or hidden_dim=None, got {hidden_dim}."
            )
        self.order = order
        self.kl_direction = kl_direction
        self.entropy_weight = entropy_weight
        self.meta_weight = meta_weight
        self.compatibility_weight = compatibility_weight
        self.reduction: Reduction = reduction
        self.label_eps = label_eps
        self.regenerate_labels = regenerate_labels
        self.generator_start = generator_start
        self.encoder_decay = encoder_decay if encoder == "average" else None
        self.head = find_head(network, head)
        # Present from the start and loaded at the end of warm-up: checkpoints have the same keys
        # in every epoch.
        self.encoder: nn.Module | None = None
        if encoder != "current":
            self.encoder = copy.deepcopy(network).requires_grad_(False).eval()
        seen = network if self.encoder is None else self.encoder
        self._features = InferenceFeatures(seen, self.head, encoder_mode)
        width = head_of(network, self.head).in_features
        self.generator = LabelGenerator(width, num_classes, hidden_dim)
        self.confident = None if num_confident is None else ConfidentMeta(num_confident)
        if self.confident is not None:
            self.whole_batch = "num_confident draws a meta batch for the whole batch"

    def noisy_step(self, batch: TrainBatch) -> StepOutput:
        """The paper's iteration: virtual update, meta loss, label update, conventional update."""
        output: StepOutput = {}
        if self.confident is not None:
            batch, output = self.confident.batches(batch, self.data, self.draws())
            if not len(batch["train"].index):
                return self._no_step()
        train, meta = batch["train"], batch["meta"]
        encoded = self.encode(train.images)
        log_soft = self.generator(encoded)
        own = None
        if self.compatibility_weight:  # γ CE(ŷ, observed): φ's own term of the meta objective
            own = self.compatibility_weight * compatibility(log_soft, train.labels)
        student_first = self.order == "student_first"
        virtual_loss = self._conventional if student_first else self._fit
        # θ' = θ − α ∂θ KL(p ‖ ŷ);  φ ← φ − β ∂φ L_meta(θ'). With the student first, θ' is the
        # optimiser's step from θ along ∂θ (KL(p ‖ ŷ) + λ H(p)), and the new θ.
        step = self.meta_step(
            train.images,
            lambda logits: virtual_loss(logits, log_soft),
            meta,
            direct=own,
            student_first=student_first,
        )
        if self.regenerate_labels and step.grads:
            log_soft = self.generator(encoded)
        log_soft = log_soft.detach()
        loss = self._conventional(step.logits, log_soft)
        if not (student_first and step.grads):
            # θ ← θ − lr [∂θ (KL(p ‖ ŷ) + λ H(p)) + w v]; v is known where φ has moved.
            clean = self.meta_weight * self.along(step.virtual_grads) if step.grads else 0.0
            self.descend(loss + clean)
        if self.encoder is not None and self.encoder_decay is not None:
            follow(self.encoder, self.network, self.encoder_decay)
        return output | self.report(step, loss, log_soft.exp())

    def _fit(self, logits: Tensor, log_soft: Tensor) -> Tensor:
        if self.kl_direction == "forward":
            return forward_kl(logits, log_soft, reduction=self.reduction)
        return reverse_kl(logits, log_soft, reduction=self.reduction, label_eps=self.label_eps)

    def _conventional(self, logits: Tensor, log_soft: Tensor) -> Tensor:
        fit = self._fit(logits, log_soft)
        return fit + self.entropy_weight * entropy(logits, reduction=self.reduction)

    def compile_pieces(self, batch: TrainBatch, backend: str = COMPILER) -> None:
        """See `MetaModule`; the encoder too."""
        super().compile_pieces(batch, backend)
        if is_compiled(self.network):
            self._features.compile(batch["train"].images, backend)

    def encode(self, images: Tensor) -> Tensor:
        """``(B, K, H, W)`` → features ``(B, F)``, the input of the encoder's head."""
        return self._features(images)

    @torch.no_grad()
    def soft_labels(self, images: Tensor) -> Tensor:
        """``(B, K, H, W)`` → soft labels ``(B, C)`` of the label generator, probabilities."""
        soft: Tensor = self.generator(self.encode(images)).exp()
        return soft

    def on_fit_start(self) -> None:
        """See `NoisyLabelModule`; with ``num_confident``, refuse data that are too few."""
        super().on_fit_start()
        if self.confident is not None:
            self.confident.check(self.data)

    def on_warmup_end(self) -> None:
        """Freeze the warmed-up network as the encoder; start the label generator."""
        if self.confident is not None:
            self.confident.choose(self.network, self.data, self.device)
        if self.encoder is not None:
            self.encoder.load_state_dict(self.network.state_dict())
        if self.generator_start == "head":
            self.generator.start_from(head_of(self.network, self.head))

    def meta_parameters(self) -> Iterable[nn.Parameter]:
        """W and b of the label generator."""
        return self.generator.parameters()

    def configure_optimizers(self) -> tuple[list[Optimizer], list[LRScheduler]]:
        """See `MetaModule`.

        Raises:
            ValueError: the order asks for a step that moves by −lr times the gradient.
        """
        optimizers, schedules = super().configure_optimizers()
        if self.order == "student_first" and not moves_by_lr(optimizers[0]):
            raise ValueError(
                "order='student_first' needs optimizer=SGD without nesterov, dampening and "
                f"maximize, got {type(optimizers[0]).__name__} that is not so."
            )
        return optimizers, schedules
