"""How good soft labels are, and how much of the noise was learned by heart.

Fractions are 0…1. Samples whose true class or label is ``UNKNOWN`` count only where neither is
needed.
"""

from __future__ import annotations

import math
from typing import TypedDict

import torch
from torch import Tensor
from torchmetrics import Metric

from mln_lightning.batch import UNKNOWN


class CorrectionCounts(TypedDict):
    """Labels before and after correction; all but ``changed`` None where no true class is known.

    ``changed``: labels that became another, or were missing. ``accuracy_before`` /
    ``accuracy_after``: fraction of observed / corrected labels that are right. ``recovered``:
    wrong labels made right. ``damaged``: right labels made wrong.
    """

    changed: int
    accuracy_before: float | None
    accuracy_after: float | None
    recovered: int | None
    damaged: int | None


def correction_counts(corrected: Tensor, observed: Tensor, clean: Tensor) -> CorrectionCounts:
    """Compare labels before and after correction; where the truth is needed, if it is known.

    Args:
        corrected: ``(N,)`` int64 labels after correction.
        observed: ``(N,)`` int64 labels before, or ``UNKNOWN``.
        clean: ``(N,)`` int64 true classes or ``UNKNOWN``.

    Returns:
        see `CorrectionCounts`.

    Raises:
        ValueError: the lengths differ.
    """
    if not corrected.shape == observed.shape == clean.shape:
        raise ValueError(
            "Corrected, observed and clean labels must pair up, got "
            f"{len(corrected)}, {len(observed)} and {len(clean)} of them."
        )
    changed = int((corrected != observed).sum())
    known = (clean != UNKNOWN) & (observed != UNKNOWN)
    total = int(known.sum())
    if not total:
        return {
            "changed": changed,
            "accuracy_before": None,
            "accuracy_after": None,
            "recovered": None,
            "damaged": None,
        }
    before = (observed == clean)[known]
    after = (corrected == clean)[known]
    return {
        "changed": changed,
        "accuracy_before": int(before.sum()) / total,
        "accuracy_after": int(after.sum()) / total,
        "recovered": int((~before & after).sum()),
        "damaged": int((before & ~after).sum()),
    }


def marginal_kl(mean_label: Tensor) -> Tensor:
    """KL(average soft label ‖ uniform), ``()`` in nats, 0 … log C.

    Args:
        mean_label: ``(C,)`` probabilities.
    """
    entropy: Tensor = torch.special.entr(mean_label).sum()
    return math.log(len(mean_label)) - entropy


class LabelQuality(Metric):
    """Label quality over an epoch.

    The counts are part of the ``state_dict``, so a run that was stopped in mid-epoch and resumed
    reports the same numbers.

    `compute` returns, of what was seen:

    ============================  ================================================================
    ``labels/accuracy``           soft label's argmax is the true class, of all known samples
    ``labels/recovered``          the same, of the samples observed wrong (1 if there are none)
    ``labels/damaged``            argmax is wrong, of the samples observed right (0 if none)
    ``labels/entropy``            mean entropy of a soft label, nats
    ``labels/marginal_kl``        KL(average soft label ‖ uniform), nats; log C = collapse
    ``labels/calibration``        expected calibration error (Naeini et al., AAAI 2015), equal bins
    ``memorized/noisy``           prediction is the *wrong* observed label, of the samples observed
                                  wrong (0 if there are none)
    ============================  ================================================================

    Keys that need a true class are absent if none is known, ``labels/…`` if no soft label was seen.

    Args:
        num_classes: C, at least 2.
        num_bins: bins of the calibration error.

    Raises:
        ValueError: an argument is out of range.
    """

    full_state_update = False

    num_known: Tensor
    observed_wrong: Tensor
    memorized: Tensor
    num_soft: Tensor
    outcomes: Tensor
    soft_sum: Tensor
    entropy_sum: Tensor
    bins: Tensor

    def __init__(self, num_classes: int, num_bins: int = 15) -> None:
        if num_classes < 2 or num_bins < 1:
            raise ValueError(
                "LabelQuality needs num_classes >= 2 and num_bins >= 1, "
                f"got {num_classes} and {num_bins}."
            )
        super().__init__()
        self.num_bins = num_bins
        for name, start in (
            ("num_known", torch.tensor(0)),
            ("observed_wrong", torch.tensor(0)),
            ("memorized", torch.tensor(0)),
            ("num_soft", torch.tensor(0)),
            ("outcomes", torch.zeros(2, 2, dtype=torch.int64)),  # [observed right, argmax right]
            ("soft_sum", torch.zeros(num_classes)),
            ("entropy_sum", torch.tensor(0.0)),
            ("bins", torch.zeros(3, num_bins)),  # samples, right ones, sum of confidences
        ):
            self.add_state(name, start, dist_reduce_fx="sum", persistent=True)

    def update(
        self, logits: Tensor, observed: Tensor, clean: Tensor, soft_labels: Tensor | None = None
    ) -> None:
        """Add a batch.

        Args:
            logits: ``(B, C)`` of the classifier.
            observed: ``(B,)`` int64 observed labels or ``UNKNOWN``.
            clean: ``(B,)`` int64 true classes or ``UNKNOWN``.
            soft_labels: ``(B, C)`` probabilities the step trained on, if there are any.
        """
        known = (clean != UNKNOWN) & (observed != UNKNOWN)
        wrong = known & (observed != clean)
        self.num_known += known.sum()
        self.observed_wrong += wrong.sum()
        self.memorized += (wrong & (logits.argmax(dim=1) == observed)).sum()
        if soft_labels is None:
            return
        soft_labels = soft_labels.float()
        self.num_soft += len(soft_labels)
        self.soft_sum += soft_labels.sum(dim=0)
        self.entropy_sum += torch.special.entr(soft_labels).sum()
        confidence, choice = soft_labels.max(dim=1)
        right = choice == clean
        cell = 2 * (observed == clean).long() + right.long()
        # Sums with a zero weight for unknown samples instead of a selection: no wait for a GPU.
        self.outcomes += (
            known.new_zeros(4, dtype=torch.int64).index_add_(0, cell, known.long()).view(2, 2)
        )
        # NaN has no bin, but must not crash here: the run itself stops for it, in a sentence.
        bin_index = (confidence.nan_to_num() * self.num_bins).long().clamp(max=self.num_bins - 1)
        terms = torch.stack([torch.ones_like(confidence), right.float(), confidence]) * known
        self.bins.index_add_(1, bin_index, terms)

    def compute(self) -> dict[str, Tensor]:
        """All measures that what was seen allows, each ``()``; see the class."""
        result: dict[str, Tensor] = {}
        if self.num_soft > 0:
            result["labels/entropy"] = self.entropy_sum / self.num_soft
            result["labels/marginal_kl"] = marginal_kl(self.soft_sum / self.soft_sum.sum())
        (lost, recovered), (damaged, kept) = self.outcomes.tolist()
        total = lost + recovered + damaged + kept
        if total:
            result["labels/accuracy"] = _fraction(recovered + kept, total)
            result["labels/recovered"] = _fraction(recovered, lost + recovered, empty=1.0)
            result["labels/damaged"] = _fraction(damaged, damaged + kept)
            _, right, confidence = self.bins
            result["labels/calibration"] = (right - confidence).abs().sum() / total
        if self.num_known > 0:
            result["memorized/noisy"] = _fraction(int(self.memorized), int(self.observed_wrong))
        return result


def _fraction(part: int, whole: int, *, empty: float = 0.0) -> Tensor:
    return torch.tensor(part / whole if whole else empty)
