"""What a model's parameters are called, and which of them a config means."""

from __future__ import annotations

from fnmatch import fnmatchcase

from torch import nn

from rwalk.core.config import RWalkConfig
from rwalk.core.sharding import show_shards
from rwalk.errors import RWalkError

__all__ = ["canonical_name", "named_parameters", "selected_parameters", "selects"]

WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")


def canonical_name(name: str) -> str:
    """A parameter's name without what DataParallel, DDP, ``torch.compile`` and other wrappers put into it.

    Example:
        >>> canonical_name("module._orig_mod.encoder.0.weight")
        'encoder.0.weight'

    Note:
        ``module`` is stripped only in front, where DDP puts it; a model may own a submodule of that name.
    """
    parts = name.split(".")
    while len(parts) > 1 and parts[0] in WRAPPERS:
        parts = parts[1:]
    return ".".join(part for part in parts if part not in WRAPPERS[1:])


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
    for raw_name, parameter in model.named_parameters():
        name = canonical_name(raw_name)
        if name in named:
            raise RWalkError(f"two parameters are both called {name!r} once wrappers are stripped: rename a submodule")
        named[name] = parameter
    return named


def selects(config: RWalkConfig, name: str) -> bool:
    """Whether ``include`` and ``exclude`` leave a name."""
    if any(fnmatchcase(name, pattern) for pattern in config.exclude):
        return False
    return not config.include or any(fnmatchcase(name, pattern) for pattern in config.include)
