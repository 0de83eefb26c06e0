"""Label noise: functions from clean labels to observed labels."""

from mln_lightning.noise.base import NoiseModel, empirical_transition, noise_rate
from mln_lightning.noise.cluster import ClusterNoise
from mln_lightning.noise.human import HumanLabels
from mln_lightning.noise.instance import InstanceNoise, expected_instance_rate
from mln_lightning.noise.matrices import (
    asymmetric,
    pair,
    random_transition,
    read_transition,
    symmetric,
    within_superclass,
)
from mln_lightning.noise.record import NoiseRecord
from mln_lightning.noise.recorded import RecordedLabels
from mln_lightning.noise.teacher import TeacherNoise
from mln_lightning.noise.transition import ClassConditionalNoise

__all__ = [
    "ClassConditionalNoise",
    "ClusterNoise",
    "HumanLabels",
    "InstanceNoise",
    "NoiseModel",
    "NoiseRecord",
    "RecordedLabels",
    "TeacherNoise",
    "asymmetric",
    "empirical_transition",
    "expected_instance_rate",
    "noise_rate",
    "pair",
    "random_transition",
    "read_transition",
    "symmetric",
    "within_superclass",
]
