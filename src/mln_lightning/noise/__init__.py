"""Label noise: functions from clean labels to observed labels."""

from mln_lightning.noise.base import NoiseModel, empirical_transition, noise_rate
from mln_lightning.noise.matrices import (
    asymmetric,
    pair,
    random_transition,
    read_transition,
    symmetric,
    within_superclass,
)
from mln_lightning.noise.record import NoiseRecord
from mln_lightning.noise.transition import ClassConditionalNoise

__all__ = [
    "ClassConditionalNoise",
    "NoiseModel",
    "NoiseRecord",
    "asymmetric",
    "empirical_transition",
    "noise_rate",
    "pair",
    "random_transition",
    "read_transition",
    "symmetric",
    "within_superclass",
]
