"""Data sets: one function each, returning `mln_lightning.data.Splits`."""

from mln_lightning.datasets.arrays import arrays
from mln_lightning.datasets.blobs import blobs
from mln_lightning.datasets.cifar import cifar10, cifar100
from mln_lightning.datasets.clothing1m import clothing1m
from mln_lightning.datasets.digits import digits
from mln_lightning.datasets.fashion_mnist import fashion_mnist
from mln_lightning.datasets.folder import folder
from mln_lightning.datasets.food101n import food101n
from mln_lightning.datasets.hugging_face import hugging_face, hugging_face_info
from mln_lightning.datasets.table import table
from mln_lightning.datasets.webvision import webvision

__all__ = [
    "arrays",
    "blobs",
    "cifar10",
    "cifar100",
    "clothing1m",
    "digits",
    "fashion_mnist",
    "folder",
    "food101n",
    "hugging_face",
    "hugging_face_info",
    "table",
    "webvision",
]
