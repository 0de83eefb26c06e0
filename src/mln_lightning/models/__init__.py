"""Learning methods as LightningModules, one per file."""

from mln_lightning.models.base import NoisyLabelModule
from mln_lightning.models.finetune import Finetune
from mln_lightning.models.glc import GoldLossCorrection
from mln_lightning.models.loss_correction import BackwardCorrection, ForwardCorrection
from mln_lightning.models.meta_module import MetaModule
from mln_lightning.models.metalabelnet import MetaLabelNet
from mln_lightning.models.supervised import Supervised

__all__ = [
    "BackwardCorrection",
    "Finetune",
    "ForwardCorrection",
    "GoldLossCorrection",
    "MetaLabelNet",
    "MetaModule",
    "NoisyLabelModule",
    "Supervised",
]
