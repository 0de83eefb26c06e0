"""Learning methods as LightningModules, one per file."""

from mln_lightning.models.base import NoisyLabelModule
from mln_lightning.models.elr import ELR
from mln_lightning.models.finetune import Finetune
from mln_lightning.models.meta_module import MetaModule
from mln_lightning.models.metalabelnet import MetaLabelNet
from mln_lightning.models.mixup import Mixup
from mln_lightning.models.sop import SOP
from mln_lightning.models.supervised import Supervised
from mln_lightning.models.truncated_gce import TruncatedGCE

__all__ = [
    "ELR",
    "SOP",
    "Finetune",
    "MetaLabelNet",
    "MetaModule",
    "Mixup",
    "NoisyLabelModule",
    "Supervised",
    "TruncatedGCE",
]
