"""What travels through a training step.

Axis letters, here and in every docstring: ``B`` batch, ``N`` training samples, ``C`` classes,
``F`` features, ``K`` image channels, ``H W`` image height and width.
"""

from __future__ import annotations

from typing import NamedTuple, NotRequired, TypedDict

from torch import Tensor

UNKNOWN = -1
"""The label of a sample whose label is not available."""


class Batch(NamedTuple):
    """Samples of one split.

    Attributes:
        images: ``(B, K, H, W)`` uint8 0…255 from the loader, normalised float32 after transfer.
        labels: ``(B,)`` int64 observed labels, all that a learner sees; ``UNKNOWN`` = unlabelled.
        clean: ``(B,)`` int64 true classes or ``UNKNOWN``; for metrics, callbacks and export only.
        index: ``(B,)`` int64 row of each sample in the full training set (or in its own split).
    """

    images: Tensor
    labels: Tensor
    clean: Tensor
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which nobody needs here


class TrainBatch(TypedDict):
    """One training step's data: an observed-label batch and a batch of the clean meta set."""

    train: Batch
    meta: Batch


class StepOutput(TypedDict):
    """What a training step reports; a mapping because Lightning's manual loop takes nothing richer.

    Attributes:
        loss: ``()`` conventional loss of the step, detached; absent if there was nothing to learn
            from (a batch without labels).
        logits: ``(B, C)`` of the training batch at the parameters before the step, detached; absent
            in steps that do not see its images.
        soft_labels: ``(B, C)`` probabilities the step trained on, detached; absent where the
            observed labels were used as they are.
        meta_loss: ``()`` loss on the meta batch, detached; absent in steps without one.
        rows: ``(B,)`` bool, the samples of the training batch that the step saw and the tables
            above are about, in their order; absent = all of them.
    """

    loss: NotRequired[Tensor]
    logits: NotRequired[Tensor]
    soft_labels: NotRequired[Tensor]
    meta_loss: NotRequired[Tensor]
    rows: NotRequired[Tensor]
