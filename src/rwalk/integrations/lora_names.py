"""Whether an adapter is the one that had its name before: that may have been merged, or removed."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from rwalk.core import RWalk
from rwalk.core.names import named_parameters
from rwalk.integrations.lora_checks import is_peft

__all__ = ["AdaptersSeen", "without_gone"]

log = logging.getLogger(__name__)

Adapter = tuple[Any, dict[str, nn.Parameter]]


class AdaptersSeen:
    """The adapters that a model had, with their layers, which know whether they were merged."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], Adapter] = {}

    def note(self, model: nn.Module) -> None:
        """These are followed now."""
        self._seen = dict(_adapters(model))

    def gone(self, model: nn.Module) -> dict[str, str]:
        """The parameters that have a name as before and are of a new adapter, with its name.

        An adapter that was saved and loaded again is the same: it was not merged, and what it had learned is there.
        """
        found: dict[str, str] = {}
        for key, (layer, parameters) in _adapters(model):
            before, old = self._seen.get(key, (layer, parameters))
            if before is layer and all(old.get(name) is each for name, each in parameters.items()):
                continue
            pairs = [(old[name].detach(), each.detach()) for name, each in parameters.items() if name in old]
            merged = before is not layer and key[1] in before.merged_adapters
            if not all(_same(*pair) for pair in pairs) and (merged or any(_is_reset(*pair) for pair in pairs)):
                found.update(dict.fromkeys(parameters, key[1]))
        return found


def without_gone(rwalk: RWalk, gone: dict[str, str]) -> RWalk:
    """An RWalk that follows a model with new adapters, and keeps what is not of those that are gone.

    Args:
        rwalk: Follows the model, not attached; it has importances of adapters that are gone, under the new ones' names.
        gone: From ``AdaptersSeen.gone``.
    """
    if not gone:
        return rwalk
    state = rwalk.state_dict()
    lost = state["parameters"].keys() & gone.keys()
    if not lost:
        return rwalk
    log.warning(
        "adapter %s was merged or removed, and the model has a new one of its name: RWalk starts anew for its %d "
        "parameter(s), first %s. What was merged is held as the base is (protect=), or not at all",
        " and ".join(sorted({repr(gone[name]) for name in lost})), len(lost), min(lost),
    )  # fmt: skip
    kept = {name: values for name, values in state["parameters"].items() if name not in lost}
    fresh = RWalk(rwalk.model, rwalk.optimizer, rwalk.config, attach=False)
    if kept:
        fresh.load_state_dict({**state, "parameters": kept})
    return fresh


def _adapters(model: nn.Module) -> Iterator[tuple[tuple[str, str], Adapter]]:
    """By layer and name: the layer and the adapter's parameters."""
    if not is_peft(model):
        return
    kind = sys.modules["peft.tuners.tuners_utils"].BaseTunerLayer
    names = {id(parameter): name for name, parameter in named_parameters(model).items()}
    for path, layer in model.named_modules():
        if not isinstance(layer, kind):
            continue
        found: dict[str, dict[str, nn.Parameter]] = {}
        parts = [getattr(layer, name, None) for name in layer.adapter_layer_names]
        for part in [part for part in parts if isinstance(part, nn.Module)]:
            for inside, parameter in part.named_parameters():
                if id(parameter) in names:
                    found.setdefault(inside.split(".")[0], {})[names[id(parameter)]] = parameter
        for adapter, parameters in found.items():
            yield (path, adapter), (layer, parameters)


def _same(old: Tensor, new: Tensor) -> bool:
    return old.shape == new.shape and torch.equal(old, new.to(old))


def _is_reset(old: Tensor, new: Tensor) -> bool:
    """Whether it is zero and was not, as one of an adapter's factors is when it begins."""
    return bool(old.any()) and not bool(new.any())
