"""Label noise: functions from clean labels to observed labels."""

from mln_lightning.noise.base import NoiseModel, empirical_transition, noise_rate
from mln_lightning.noise.human import HumanLabels
from mln_lightning.noise.record import NoiseRecord
from mln_lightning.noise.transition import ClassConditionalNoise, asymmetric, symmetric

__all__ = [
    "ClassConditionalNoise",
    "HumanLabels",
    "NoiseModel",
    "NoiseRecord",
    "asymmetric",
    "empirical_transition",
    "noise_rate",
    "symmetric",
]
