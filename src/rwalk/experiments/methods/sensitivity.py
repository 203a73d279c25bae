"""Memory Aware Synapses: weights that the output is sensitive to are held, whatever the labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rwalk.core import RWalkConfig
from rwalk.experiments.methods.method import Method, with_options
from rwalk.training import BasePlugin, MASPlugin

__all__ = ["METHODS"]


def _plugin(config: RWalkConfig, options: Mapping[str, Any]) -> list[BasePlugin]:  # noqa: ARG001 - the signature of all
    return [with_options(MASPlugin, options)]


METHODS = (Method("mas", "Memory Aware Synapses: holds weights that the output is sensitive to", _plugin, rank=41),)
