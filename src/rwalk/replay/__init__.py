"""Exemplars: which to keep, and how many."""

from rwalk.replay.discriminant import LinearDiscriminant
from rwalk.replay.memory import ExemplarMemory
from rwalk.replay.nearest_mean import ClassMeans
from rwalk.replay.probe import Probe
from rwalk.replay.sampler import Candidates, Sampler
from rwalk.replay.samplers import (
    SAMPLERS,
    ClassBalancedReservoir,
    Entropy,
    MeanOfFeatures,
    PlaneDistance,
    Reservoir,
    Uniform,
)
from rwalk.replay.selection import entropy, mean_of_features, plane_distance, reservoir, uniform
from rwalk.replay.shares import balanced_shares

__all__ = [
    "SAMPLERS",
    "Candidates",
    "ClassBalancedReservoir",
    "ClassMeans",
    "Entropy",
    "ExemplarMemory",
    "LinearDiscriminant",
    "MeanOfFeatures",
    "PlaneDistance",
    "Probe",
    "Reservoir",
    "Sampler",
    "Uniform",
    "balanced_shares",
    "entropy",
    "mean_of_features",
    "plane_distance",
    "reservoir",
    "uniform",
]
