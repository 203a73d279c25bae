"""Riemannian Walk as published, and as each published code computes it; EWC++ and Path Integral, which it joins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rwalk.core import RWalkConfig
from rwalk.experiments.methods.method import Method
from rwalk.training import BasePlugin, RWalkPlugin

__all__ = ["METHODS"]


def _plugin(config: RWalkConfig, options: Mapping[str, Any]) -> list[BasePlugin]:
    if options:
        raise ValueError(f"options={dict(options)!r}: settings of methods made of the core go into rwalk")
    return [RWalkPlugin.from_config(config)]


METHODS = (
    Method("rwalk", "Riemannian Walk", _plugin, preset="paper", rank=10),
    Method("rwalk-laplace", "Riemannian Walk that counts all tasks alike", _plugin, "laplace", rank=11),
    Method("ewc++", "Riemannian Walk's moving Fisher alone", _plugin, preset="ewc_plus_plus", rank=20),
    Method("pi", "Path Integral (Synaptic Intelligence)", _plugin, preset="path_integral", rank=21),
    Method("rwalk-avalanche", "Riemannian Walk as Avalanche computes it", _plugin, preset="avalanche", rank=30),
    Method("rwalk-facil", "Riemannian Walk as FACIL computes it", _plugin, preset="facil", rank=30),
    Method("rwalk-agem", "Riemannian Walk as its authors' code computes it", _plugin, preset="agem", rank=30),
    Method("rwalk-capymoa", "Riemannian Walk as CapyMOA computes it", _plugin, preset="capymoa", rank=30),
)
