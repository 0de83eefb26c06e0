"""Learning methods as LightningModules, one per file."""

from mln_lightning.models.base import NoisyLabelModule
from mln_lightning.models.dmlp import DMLP
from mln_lightning.models.finetune import Finetune
from mln_lightning.models.joint_optimization import JointOptimization
from mln_lightning.models.meta_module import MetaModule
from mln_lightning.models.metalabelnet import MetaLabelNet
from mln_lightning.models.pencil import Pencil
from mln_lightning.models.supervised import Supervised

__all__ = [
    "DMLP",
    "Finetune",
    "JointOptimization",
    "MetaLabelNet",
    "MetaModule",
    "NoisyLabelModule",
    "Pencil",
    "Supervised",
]
