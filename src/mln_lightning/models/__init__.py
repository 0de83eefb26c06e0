"""Learning methods as LightningModules, one per file."""

from __future__ import annotations

from mln_lightning.models.base import NoisyLabelModule
from mln_lightning.models.coteaching import CoTeaching
from mln_lightning.models.coteaching_plus import CoTeachingPlus
from mln_lightning.models.dividemix import DivideMix
from mln_lightning.models.dmlp import DMLP
from mln_lightning.models.elr import ELR
from mln_lightning.models.finetune import Finetune
from mln_lightning.models.glc import GoldLossCorrection
from mln_lightning.models.joint_optimization import JointOptimization
from mln_lightning.models.l2r import LearningToReweight
from mln_lightning.models.loss_correction import BackwardCorrection, ForwardCorrection
from mln_lightning.models.meta_module import MetaModule
from mln_lightning.models.metalabelnet import MetaLabelNet
from mln_lightning.models.mixup import Mixup
from mln_lightning.models.mlc import MLC
from mln_lightning.models.mlnt import MLNT
from mln_lightning.models.mslc import MSLC
from mln_lightning.models.mslg import MSLG
from mln_lightning.models.mw_net import MetaWeightNet
from mln_lightning.models.pencil import Pencil
from mln_lightning.models.sop import SOP
from mln_lightning.models.supervised import Supervised
from mln_lightning.models.truncated_gce import TruncatedGCE

__all__ = [
    "DMLP",
    "ELR",
    "MLC",
    "MLNT",
    "MSLC",
    "MSLG",
    "SOP",
    "BackwardCorrection",
    "CoTeaching",
    "CoTeachingPlus",
    "DivideMix",
    "Finetune",
    "ForwardCorrection",
    "GoldLossCorrection",
    "JointOptimization",
    "LearningToReweight",
    "MetaLabelNet",
    "MetaModule",
    "MetaWeightNet",
    "Mixup",
    "NoisyLabelModule",
    "Pencil",
    "Supervised",
    "TruncatedGCE",
]
