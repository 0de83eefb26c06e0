"""Measures of labels and of what was learned from them."""

from mln_lightning.metrics.human import human_agreement, read_soft_labels
from mln_lightning.metrics.label_quality import LabelQuality, correction_counts

__all__ = ["LabelQuality", "correction_counts", "human_agreement", "read_soft_labels"]
