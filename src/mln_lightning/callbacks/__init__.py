"""What watches a run: reproducibility, checkpoints, label quality, and what is shown."""

from mln_lightning.callbacks.checkpoint import Checkpoint
from mln_lightning.callbacks.collapse import CollapseWarning
from mln_lightning.callbacks.compiling import CompilePieces
from mln_lightning.callbacks.history import History
from mln_lightning.callbacks.label_quality import LabelQualityCurve
from mln_lightning.callbacks.progress import EpochProgress
from mln_lightning.callbacks.reseed import Reseed

__all__ = [
    "Checkpoint",
    "CollapseWarning",
    "CompilePieces",
    "EpochProgress",
    "History",
    "LabelQualityCurve",
    "Reseed",
]
