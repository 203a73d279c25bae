"""Learning without Forgetting: the old model's answers are kept, no weight and no data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rwalk.core import RWalkConfig
from rwalk.experiments.methods.method import Method, with_options
from rwalk.training import BasePlugin, LwFPlugin

__all__ = ["METHODS"]


def _plugin(config: RWalkConfig, options: Mapping[str, Any]) -> list[BasePlugin]:  # noqa: ARG001 - the signature of all
    return [with_options(LwFPlugin, options)]


METHODS = (Method("lwf", "Learning without Forgetting: distils the model before each experience", _plugin, rank=40),)
