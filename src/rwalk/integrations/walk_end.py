"""Other callbacks put other weights in place as training ends: where the steps have led is kept until the task does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any
from weakref import WeakMethod

import torch
from torch import Tensor, nn

from rwalk.core import RWalk
from rwalk.core.hooks import LoadingHook
from rwalk.core.names import named_parameters
from rwalk.core.sharding import local, over_processes

__all__ = ["WalkEnd"]


class WalkEnd:
    """Brings the last step in, and ends the open window where the steps have led if other weights take their place.

    They may be written in place, which shows at the task's end, or loaded, which would drop the window: it ends just
    before.

    Args:
        rwalks: The cores.
        module: Whose weights the others may replace.

    Example:
        >>> model = nn.Linear(2, 1)
        >>> rwalk = RWalk(model, torch.optim.SGD(model.parameters(), lr=0.1))
        >>> end = WalkEnd([rwalk], model)
        >>> # other callbacks
        >>> end.close()
        >>> rwalk.consolidate()
    """

    def __init__(self, rwalks: Iterable[RWalk], module: nn.Module) -> None:
        self._rwalks, self._module = list(rwalks), module
        for rwalk in self._rwalks:
            rwalk.settle()
        self._named = dict(named_parameters(module))
        self._protected = {each for rwalk in self._rwalks for each in rwalk.protected()}
        self._parameters = [p for p in self._named.values() if id(p) in self._protected]
        open_windows = any(rwalk.window_steps and rwalk.config.unfinished != "drop" for rwalk in self._rwalks)
        self._walked = [local(p).detach().clone() for p in self._parameters] if open_windows else []
        self._ended = not open_windows
        hook = _BeforeLoading(self._end_window)
        self._handles = [each.register_load_state_dict_pre_hook(hook) for each in module.modules() if open_windows]

    def close(self) -> None:
        """All others are done: look whether the weights have moved, and let go."""
        self.let_go()
        if self._ended:
            return
        pairs = zip(self._walked, (local(p).detach() for p in self._parameters), strict=True)
        moved = any(one.shape != other.shape or not torch.equal(one, other.to(one)) for one, other in pairs)
        if over_processes(torch.tensor(float(moved)), self._parameters, "max"):
            self._end_window()

    def is_rebuilt(self) -> bool:
        """Whether others have put other parameters in place of protected ones, or none (adapters were merged, say)."""
        now = named_parameters(self._module)
        return any(id(p) in self._protected and now.get(name) is not p for name, p in self._named.items())

    def as_it_was(self) -> nn.Module:
        """The parameters where the walk has left them, under the names that they had then; it computes nothing."""
        root = nn.Module()
        for name, parameter in self._named.items():
            *path, last = name.split(".")
            place = root
            for part in path:
                if part not in place._modules:
                    place.add_module(part, nn.Module())
                place = place.get_submodule(part)
            place.register_parameter(last, parameter)
        return root

    def let_go(self) -> None:
        """Notice no more loading."""
        for handle in self._handles:
            handle.remove()

    @torch.no_grad()
    def _end_window(self) -> None:
        if self._ended:
            return
        self._ended = True
        left = [local(p).detach().clone() for p in self._parameters]
        _put(self._walked, self._parameters)
        for rwalk in self._rwalks:
            rwalk.end_window()
        _put(left, self._parameters)


class _BeforeLoading(LoadingHook):
    """What a module calls before ``load_state_dict`` replaces its weights."""

    def __init__(self, act: Callable[[], None]) -> None:
        self._act = WeakMethod(act)

    def __call__(self, *_: Any) -> None:
        act = self._act()
        if act is not None:
            act()


def _put(weights: Sequence[Tensor], parameters: Iterable[nn.Parameter]) -> None:
    for parameter, values in zip(parameters, weights, strict=True):
        if local(parameter).shape == values.shape:  # else it was rebuilt in place
            local(parameter).copy_(values)
