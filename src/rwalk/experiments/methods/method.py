"""What a method is, and how it reads its options."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_type_hints

from rwalk.core import RWalkConfig
from rwalk.errors import closest
from rwalk.training import BasePlugin

__all__ = ["Method", "with_options"]

#: What is expected of an option, by its type.
EXPECTED: dict[type, str] = {float: "a number", int: "a whole number", type(None): "null"}


def _nothing(config: RWalkConfig, options: Mapping[str, Any]) -> list[BasePlugin]:  # noqa: ARG001 - the signature of all
    if options:
        raise ValueError(f"options={dict(options)!r}: this method has no options")
    return []


@dataclass(frozen=True)
class Method:
    """A way to learn from a stream. Any of them may replay exemplars besides.

    Attributes:
        name: What it is called in specs.
        summary: One line about it.
        plugins: What it adds to the loop, given the settings of Riemannian Walk and its own options. Raises
            ``ValueError`` or ``TypeError`` for options that it does not have.
        preset: The preset of ``RWalkConfig`` that a spec's ``rwalk`` settings change; None if it does not use the core.
        data: What an experience is learned from: its ``"new"`` data; ``"all"`` data so far, going on with the same
            weights; or ``"joint"``, all data so far from fresh weights.
        rank: Where it is listed, lower first.
    """

    name: str
    summary: str
    plugins: Callable[[RWalkConfig, Mapping[str, Any]], list[BasePlugin]] = _nothing
    preset: str | None = None
    data: Literal["new", "all", "joint"] = "new"
    rank: int = 50

    @property
    def reads_rwalk(self) -> bool:
        """Whether it is made of the core, and reads settings of ``RWalkConfig``."""
        return self.preset is not None

    @property
    def has_strength(self) -> bool:
        """Whether it holds on to the past by something whose strength has to be chosen for each benchmark."""
        return self.plugins is not _nothing

    @property
    def strength(self) -> str | None:
        """The key of a spec that holds that strength; None where there is none to choose."""
        if not self.has_strength:
            return None
        return "rwalk.ewc_lambda" if self.reads_rwalk else "options.strength"


def with_options(kind: type[BasePlugin], options: Mapping[str, Any]) -> BasePlugin:
    """A plugin with a spec's options, of which each is one that it has, and of its type.

    Args:
        kind: The plugin's class.
        options: By name.

    Raises:
        ValueError: One is not, or is out of range; the message names it, its value, and what was expected.
    """
    known, hints = list(inspect.signature(kind).parameters), get_type_hints(kind.__init__)
    for name, value in options.items():
        if name not in known:
            raise ValueError(
                f"options.{name}={value!r}: unknown{closest(name, known)}; this method has {', '.join(known)}"
            )
        types = get_args(hints[name]) or (hints[name],)
        if not any(_is_of(value, of_type) for of_type in types):
            raise ValueError(f"options.{name}={value!r}: expected {' or '.join(EXPECTED[each] for each in types)}")
    return kind(**options)


def _is_of(value: Any, of_type: type) -> bool:
    """Whether a value is of a type: a whole number is a number too, and true or false is none."""
    if of_type not in EXPECTED:
        return True
    return isinstance(value, (int, float) if of_type is float else of_type) and not isinstance(value, bool)
