"""Training through a transition matrix, given or estimated after warm-up."""

from __future__ import annotations

import copy
from typing import Literal

import torch
from torch import Tensor, nn

from mln_lightning.batch import StepOutput, TrainBatch
from mln_lightning.data.parts import Part
from mln_lightning.losses import backward_correction, forward_correction
from mln_lightning.models.base import NoisyLabelModule, OptimizerFactory, SchedulerFactory
from mln_lightning.networks import evaluating
from mln_lightning.noise.checks import check_transition
from mln_lightning.noise.estimate import (
    anchor_transition,
    inverse_transition,
    invertible,
    meta_transition,
)


class ForwardCorrection(NoisyLabelModule):
    """Predictions pass through the transition matrix before they are compared with the labels.

    Patrini et al., "Making Deep Neural Networks Robust to Label Noise: a Loss Correction Approach",
    CVPR 2017, theorem 2 and algorithm 1: train on the observed labels (the warm-up), estimate T,
    train with the corrected loss.

    Args:
        network: see `NoisyLabelModule`.
        num_classes: C.
        optimizer: see `NoisyLabelModule`.
        transition: T, ``(C, C)`` with rows of clean classes, if it is known; ``anchor`` estimates
            it from the surest predictions on the training images, ``meta`` from those on the meta
            set.
        outliers: share of a class, at least 0 and below 1, that may be surer than its anchor, were
            all classes equally large: the anchor is at the quantile 1 − outliers / C of all images.
        restart: whether training starts over from the initial weights when the warm-up has ended.
        scheduler: see `NoisyLabelModule`; it is not restarted.
        warmup_epochs: epochs before the estimate, at least 0, and at least 1 for an estimate.

    Raises:
        ValueError: an argument is out of range, or the matrix is not a transition matrix.
    """

    transition: Tensor

    def __init__(
        self,
        network: nn.Module,
        num_classes: int,
        optimizer: OptimizerFactory,
        *,
        transition: Tensor | Literal["anchor", "meta"],
        outliers: float = 0.0,
        restart: bool = True,
        scheduler: SchedulerFactory | None = None,
        warmup_epochs: int = 1,
    ) -> None:
        super().__init__(
            network, num_classes, optimizer, scheduler=scheduler, warmup_epochs=warmup_epochs
        )
        if not 0 <= outliers < 1:
            raise ValueError(f"outliers must be at least 0 and below 1, got {outliers}.")
        matrix = torch.eye(num_classes)  # until it is estimated
        if isinstance(transition, Tensor):
            matrix = check_transition(transition).to(matrix.dtype)
            if len(matrix) != num_classes:
                raise ValueError(
                    f"transition must have {num_classes} rows, one for each class, got "
                    f"{len(matrix)}."
                )
        elif transition not in ("anchor", "meta"):
            raise ValueError(
                f"transition must be 'anchor', 'meta' or a (C, C) tensor, got {transition!r}."
            )
        elif warmup_epochs < 1:
            raise ValueError(
                f"warmup_epochs must be 1 or more to estimate the transition matrix, got "
                f"{warmup_epochs}."
            )
        self.register_buffer("transition", matrix)
        self.estimate = None if isinstance(transition, Tensor) else transition
        self.quantile = 1 - outliers / num_classes
        # In checkpoints too: after a resume the warm-up may still have to end.
        self.initial = copy.deepcopy(network).requires_grad_(False) if restart else None

    def noisy_step(self, batch: TrainBatch) -> StepOutput:
        """θ ← θ − lr · ∂θ corrected_loss(network(x), observed label)."""
        train = batch["train"]
        logits = self.network(train.images)
        loss = self.corrected_loss(logits, train.labels)
        self.descend(loss)
        return {"loss": loss.detach(), "logits": logits.detach()}

    def corrected_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits ``(B, C)`` and observed labels ``(B,)`` ↦ −log (p T)_y, ``()``."""
        return forward_correction(logits, labels, transition=self.transition)

    def on_warmup_end(self) -> None:
        """Estimate T with the warmed-up network, unless it is given; start over, if asked to."""
        parts = self.data.parts if self.estimate else None
        if parts is not None and self.estimate == "anchor":
            probabilities = self._probabilities(parts.train)
            self.use(anchor_transition(probabilities, quantile=self.quantile))
        elif parts is not None:
            labels = parts.meta.labels.to(self.device)
            self.use(meta_transition(self._probabilities(parts.meta), labels))
        if self.initial is not None:
            self.network.load_state_dict(self.initial.state_dict())
            self._network_optimizer().optimizer.state.clear()

    def use(self, transition: Tensor) -> None:
        """Correct with this matrix ``(C, C)`` from now on."""
        self.transition.copy_(transition)

    def _probabilities(self, part: Part) -> Tensor:
        """``(n, C)`` what the network takes the images of a set to be observed as."""
        batches = self.data.images_of(part, self.device)
        with evaluating(self.network):
            logits = [self.network(images).to(self.dtype) for images in batches]
        return torch.cat(logits).softmax(dim=1)


class BackwardCorrection(ForwardCorrection):
    """The loss of every class, mixed by the inverse of the transition matrix.

    Patrini et al., CVPR 2017, theorem 1: unbiased, but what bounds it is the floor alone.

    Args:
        network: see `ForwardCorrection`, as all that follows.
        num_classes: C.
        optimizer: see `NoisyLabelModule`.
        transition: T, whose condition number may be 100 at most; an estimate is mixed with the
            identity if it needs that.
        outliers: in [0, 1).
        restart: whether to start over.
        floor: probabilities below it count as this much in the loss, 0…1; the published code uses
            1e-7, 0 bounds nothing.
        scheduler: see `NoisyLabelModule`.
        warmup_epochs: at least 0.

    Raises:
        ValueError: see `ForwardCorrection`; or the given matrix has no reliable inverse.
    """

    inverse: Tensor

    def __init__(
        self,
        network: nn.Module,
        num_classes: int,
        optimizer: OptimizerFactory,
        *,
        transition: Tensor | Literal["anchor", "meta"],
        outliers: float = 0.0,
        restart: bool = True,
        floor: float = 1e-7,
        scheduler: SchedulerFactory | None = None,
        warmup_epochs: int = 1,
    ) -> None:
        super().__init__(
            network,
            num_classes,
            optimizer,
            transition=transition,
            outliers=outliers,
            restart=restart,
            scheduler=scheduler,
            warmup_epochs=warmup_epochs,
        )
        if not 0 <= floor < 1:
            raise ValueError(f"floor must be at least 0 and below 1, got {floor}.")
        self.floor = floor
        self.register_buffer("inverse", inverse_transition(self.transition))

    def use(self, transition: Tensor) -> None:
        """Correct with this matrix ``(C, C)`` from now on, or with the nearest to be inverted."""
        super().use(invertible(transition))
        self.inverse.copy_(inverse_transition(self.transition))

    def corrected_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits ``(B, C)`` and observed labels ``(B,)`` ↦ Σ_c T⁻¹[y, c] · (−log p_c), ``()``."""
        return backward_correction(logits, labels, inverse=self.inverse, floor=self.floor)
