"""What a model's parameters are called, and which of them a config means."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import TypeVar

from torch import nn

from rwalk.core.config import RWalkConfig
from rwalk.core.sharding import show_shards
from rwalk.errors import RWalkError

__all__ = [
    "canonical_name",
    "canonical_names",
    "named_parameters",
    "selected_parameters",
    "selects",
    "under_present_names",
]

WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")  # at any depth
Saved = TypeVar("Saved")
FRONT = "module."  # of DDP, DataParallel and AveragedModel


def canonical_names(names: Iterable[str]) -> list[str]:
    """Names of a model's parameters without what DataParallel, DDP, ``torch.compile`` and other wrappers put into them.

    Args:
        names: Of all parameters of one model. ``module`` is a wrapper's where it stands in front of each; a model may
            own a submodule of that name beside others.

    Example:
        >>> canonical_names(["module._orig_mod.encoder.0.weight", "module._orig_mod.head.weight"])
        ['encoder.0.weight', 'head.weight']
        >>> canonical_names(["module.weight", "head.weight"])
        ['module.weight', 'head.weight']
    """
    found = [".".join(part for part in name.split(".") if part not in WRAPPERS) for name in names]
    while found and all(name.startswith(FRONT) for name in found):
        found = [name.removeprefix(FRONT) for name in found]
    return found


def canonical_name(name: str) -> str:
    """One name by itself, without what wrappers put into it and without any ``module`` in front.

    Example:
        >>> canonical_name("module._orig_mod.encoder.0.weight")
        'encoder.0.weight'
    """
    return canonical_names([name])[0]


def selected_parameters(model: nn.Module, config: RWalkConfig) -> dict[str, nn.Parameter]:
    """The model's parameters that ``include`` and ``exclude`` leave, by canonical name.

    A parameter shared by several modules appears once, under its first name; of a sharded one it is the shard.

    Raises:
        RWalkError: Two parameters have one name, or FSDP1 has flattened them.
    """
    return {name: parameter for name, parameter in named_parameters(model).items() if selects(config, name)}


def named_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """All of the model's parameters by canonical name; raises as ``selected_parameters`` does."""
    show_shards(model)
    named: dict[str, nn.Parameter] = {}
    found = dict(model.named_parameters())
    for name, parameter in zip(canonical_names(found), found.values(), strict=True):
        if name in named:
            raise RWalkError(f"two parameters are both called {name!r} once wrappers are stripped: rename a submodule")
        named[name] = parameter
    return named


def under_present_names(saved: Mapping[str, Saved], model: nn.Module) -> dict[str, Saved]:
    """What was saved by name, under the names that the model's parameters have now.

    In earlier versions' states ``module.`` is left out in front of any name, and a model whose only child was called
    ``module`` may have another beside it by now.
    """
    present = named_parameters(model)
    earlier = {canonical_name(name): name for name in present if name not in saved}
    return {name if name in present else earlier.get(name, name): values for name, values in saved.items()}


def selects(config: RWalkConfig, name: str) -> bool:
    """Whether ``include`` and ``exclude`` leave a name."""
    if any(fnmatchcase(name, pattern) for pattern in config.exclude):
        return False
    return not config.include or any(fnmatchcase(name, pattern) for pattern in config.include)
