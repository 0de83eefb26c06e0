"""Learning methods as LightningModules, one per file."""

from mln_lightning.models.base import NoisyLabelModule
from mln_lightning.models.finetune import Finetune
from mln_lightning.models.l2r import LearningToReweight
from mln_lightning.models.meta_module import MetaModule
from mln_lightning.models.metalabelnet import MetaLabelNet
from mln_lightning.models.mlnt import MLNT
from mln_lightning.models.mw_net import MetaWeightNet
from mln_lightning.models.supervised import Supervised

__all__ = [
    "MLNT",
    "Finetune",
    "LearningToReweight",
    "MetaLabelNet",
    "MetaModule",
    "MetaWeightNet",
    "NoisyLabelModule",
    "Supervised",
]
