"""Exemplars: which to keep, and how many."""

from rwalk.replay.memory import ExemplarMemory
from rwalk.replay.selection import uniform

__all__ = ["ExemplarMemory", "uniform"]
