"""Data: labelled images, splits, batches that can be resumed, and the data module."""

from mln_lightning.data.augment import Augment, Normalize, RandomCropFlip
from mln_lightning.data.cache import CachedImages, cached
from mln_lightning.data.datamodule import NoisyLabelDataModule
from mln_lightning.data.encoded import EncodedImages, ImageFiles, ImageFormat, ImageStore
from mln_lightning.data.sampler import MetaSampler, TrainSampler
from mln_lightning.data.source import DatasetInfo, ImageArrays, LabeledImages, Splits
from mln_lightning.data.split import stratified_split
from mln_lightning.data.strong import StrongAugment

__all__ = [
    "Augment",
    "CachedImages",
    "DatasetInfo",
    "EncodedImages",
    "ImageArrays",
    "ImageFiles",
    "ImageFormat",
    "ImageStore",
    "LabeledImages",
    "MetaSampler",
    "NoisyLabelDataModule",
    "Normalize",
    "RandomCropFlip",
    "Splits",
    "StrongAugment",
    "TrainSampler",
    "cached",
    "stratified_split",
]
