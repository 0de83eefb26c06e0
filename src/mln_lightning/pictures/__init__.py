"""Pictures of the noise, of the corrected labels and of the classifier's mistakes."""

from mln_lightning.pictures.canvas import save_figure
from mln_lightning.pictures.confusion import confusion_figure
from mln_lightning.pictures.moved import MovedLabel, moved_figure, moved_labels
from mln_lightning.pictures.noise import noise_figure
from mln_lightning.pictures.panels import rgb

__all__ = [
    "MovedLabel",
    "confusion_figure",
    "moved_figure",
    "moved_labels",
    "noise_figure",
    "rgb",
    "save_figure",
]
