"""Data sets: one function each, returning `mln_lightning.data.Splits`."""

from mln_lightning.datasets.blobs import blobs
from mln_lightning.datasets.cifar import cifar10, cifar100
from mln_lightning.datasets.digits import digits
from mln_lightning.datasets.fashion_mnist import fashion_mnist

__all__ = ["blobs", "cifar10", "cifar100", "digits", "fashion_mnist"]
