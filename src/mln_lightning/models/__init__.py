"""Learning methods as LightningModules, one per file."""

from mln_lightning.models.base import NoisyLabelModule
from mln_lightning.models.finetune import Finetune
from mln_lightning.models.meta_module import MetaModule
from mln_lightning.models.metalabelnet import MetaLabelNet
from mln_lightning.models.mlc import MLC
from mln_lightning.models.mslc import MSLC
from mln_lightning.models.mslg import MSLG
from mln_lightning.models.supervised import Supervised

__all__ = [
    "MLC",
    "MSLC",
    "MSLG",
    "Finetune",
    "MetaLabelNet",
    "MetaModule",
    "NoisyLabelModule",
    "Supervised",
]
