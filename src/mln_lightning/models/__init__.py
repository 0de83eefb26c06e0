"""Learning methods as LightningModules, one per file."""

from mln_lightning.models.base import NoisyLabelModule
from mln_lightning.models.coteaching import CoTeaching
from mln_lightning.models.coteaching_plus import CoTeachingPlus
from mln_lightning.models.dividemix import DivideMix
from mln_lightning.models.finetune import Finetune
from mln_lightning.models.meta_module import MetaModule
from mln_lightning.models.metalabelnet import MetaLabelNet
from mln_lightning.models.supervised import Supervised

__all__ = [
    "CoTeaching",
    "CoTeachingPlus",
    "DivideMix",
    "Finetune",
    "MetaLabelNet",
    "MetaModule",
    "NoisyLabelModule",
    "Supervised",
]
