"""Image classifiers. Any other ``nn.Module`` from images to logits works just as well."""

from __future__ import annotations

from mln_lightning.networks.cnn6 import CNN6
from mln_lightning.networks.head import features, find_head, head_of, next_features
from mln_lightning.networks.inference import (
    InferenceFeatures,
    InferenceMode,
    evaluating,
    follow,
)
from mln_lightning.networks.preact_resnet18 import PreActResNet18
from mln_lightning.networks.small_cnn import SmallCNN
from mln_lightning.networks.sync_batch_norm import SyncBatchNorm, synchronise_batch_norm
from mln_lightning.networks.torchvision import torchvision_classifier

__all__ = [
    "CNN6",
    "InferenceFeatures",
    "InferenceMode",
    "PreActResNet18",
    "SmallCNN",
    "SyncBatchNorm",
    "evaluating",
    "features",
    "find_head",
    "follow",
    "head_of",
    "next_features",
    "synchronise_batch_norm",
    "torchvision_classifier",
]
