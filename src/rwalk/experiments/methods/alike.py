"""L2-SP: every weight alike is held, whatever it did."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rwalk.core import RWalkConfig
from rwalk.experiments.methods.method import Method, with_options
from rwalk.training import BasePlugin, L2SPPlugin

__all__ = ["METHODS"]


def _plugin(config: RWalkConfig, options: Mapping[str, Any]) -> list[BasePlugin]:  # noqa: ARG001 - the signature of all
    return [with_options(L2SPPlugin, options)]


METHODS = (Method("l2-sp", "L2-SP: holds every weight alike near where it was", _plugin, rank=42),)
