"""Whether there is something that a ``BaseProtection`` can hold, and whether it is what it held before."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from torch import nn
from torch.optim import Optimizer

from rwalk.errors import MissingExtraError, RWalkError
from rwalk.integrations.lora_state import Kept

if TYPE_CHECKING:
    from rwalk.integrations.lora_layers import AdaptedWeight

__all__ = ["adapted_by", "is_peft", "refuse_other_base"]


def is_peft(model: nn.Module) -> bool:
    """Whether a model, or one in it, has PEFT's adapters. Does not import peft.

    Example:
        >>> is_peft(nn.Linear(2, 2))
        False
    """
    tuners = sys.modules.get("peft.tuners.tuners_utils")
    return tuners is not None and any(isinstance(module, tuners.BaseTunerLayer) for module in model.modules())


def adapted_by(model: nn.Module, optimizer: Optimizer) -> dict[str, AdaptedWeight]:
    """The adapted weights of a model, by name; their base must be frozen.

    Raises:
        MissingExtraError: peft is not installed.
        RWalkError: The optimizer moves one itself.
    """
    try:
        from rwalk.integrations.lora_layers import adapted_weights
    except ImportError as error:
        raise MissingExtraError("BaseProtection", "peft", error) from error
    found = adapted_weights(model)
    moved = {id(p) for group in optimizer.param_groups for p in group["params"] if p.requires_grad}
    for name, each in found.items():
        if id(each.weight) in moved:
            raise RWalkError(f"{name} is trained itself, beside its adapter: freeze the base, or take RWalk.protect")
    return found


def refuse_other_base(name: str, each: AdaptedWeight, kept: Kept | None) -> None:
    """Make sure that a weight of the base lies where a protection knows it to be.

    Raises:
        RWalkError: It does not.
    """
    if kept is not None and not each.layer.merged_adapters and not kept.is_of(each.matrix(each.weight.detach())):
        raise RWalkError(
            f"{name} is not where this protection knows the base to be: it is another base, or an adapter was merged "
            "and follow(model, optimizer) was not called on the BaseProtection that watched it"
        )
