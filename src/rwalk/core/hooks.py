"""How RWalk sees what others do: an optimizer's own steps, those of another one, and weights that are replaced."""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from types import FrameType
from typing import Any, Protocol
from weakref import WeakKeyDictionary, WeakMethod, ref

import torch
from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils.hooks import RemovableHandle

from rwalk.errors import RWalkError

__all__ = ["LoadingHook", "OptimizerHooks", "base_optimizer", "is_inner_step", "release", "watch_loading"]


def base_optimizer(optimizer: Optimizer) -> Optimizer:
    """The torch optimizer inside wrappers that keep it as ``.optimizer`` (Accelerate's does).

    Raises:
        TypeError: Not an optimizer.
    """
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"optimizer={optimizer!r}: expected a torch.optim.Optimizer")
    inner = getattr(optimizer, "optimizer", None)
    return base_optimizer(inner) if isinstance(inner, Optimizer) else optimizer


def release(optimizer: Optimizer) -> bool:
    """Detach whatever follows an optimizer; whether there was anything."""
    hooks = _follower_of(base_optimizer(optimizer))
    if hooks is None:
        return False
    hooks.rwalk.detach()
    return True


class StepFollower(Protocol):
    """What the hooks call at each step of the optimizer; ``RWalk`` is one."""

    def hold_weights(self) -> None:
        """The optimizer's step begins, and will compute the gradients itself."""

    def before_step(self, *, grad_scale: Any = None, held: bool = False) -> None:
        """Gradients are complete; the optimizer is about to use them."""

    def after_step(self, *, skipped: bool | Tensor = False) -> None:
        """The optimizer has stepped, or skipped the step, or raised."""

    def abandon_step(self) -> None:
        """A step that has begun, if there is one, will not end any more: the optimizer raised, or was interrupted."""

    def protected(self) -> set[int]:
        """The parameters that the optimizer moves and RWalk protects, by identity."""

    def detach(self) -> None:
        """Stop following the optimizer."""


class OptimizerHooks:
    """Calls ``before_step`` and ``after_step`` from an optimizer's step hooks.

    - A closure runs backward *inside* the step, when a pre-hook has long run: it is wrapped, so that gradients are
      read right after it; the step begins where the weights were before it. An optimizer that calls it more than once
      a step has no one gradient, and is refused; so is one that does not call it.
    - A fused optimizer under GradScaler receives scaled gradients, ``grad_scale`` and ``found_inf`` and may skip the
      step by itself.
    - A step that raises leaves no trace. Its ``.grad`` holds the penalty's gradient: clear it before trying again.
    - A step that calls its parent class's ``step`` fires the hooks of both; only the outer ones count.
    - Another optimizer that is about to move the same parameters is refused: its steps would not be seen. So is a
      second RWalk whose optimizer holds them.

    Args:
        optimizer: Whose steps to follow.
        rwalk: Whom to tell.
        alone: Nobody else follows it. A follower that only adds to gradients may be one of several.

    Raises:
        RWalkError: LBFGS, an optimizer that has no step hooks, one that another RWalk follows already, or one that
            shares parameters with such.
    """

    def __init__(self, optimizer: Optimizer, rwalk: StepFollower, *, alone: bool = True) -> None:
        if isinstance(optimizer, LBFGS):
            raise RWalkError(
                "LBFGS evaluates its closure several times a step, so there is no one gradient to score: "
                "use a first-order optimizer"
            )
        if not hasattr(optimizer, "_optimizer_step_pre_hooks"):
            held = next((name for name, value in vars(optimizer).items() if isinstance(value, Optimizer)), None)
            way = "call super().__init__() in its own" if held is None else f"attach to optimizer.{held}"
            raise RWalkError(
                f"{type(optimizer).__name__} was made without Optimizer.__init__ and has no step hooks to follow: {way}"
            )
        if alone and _follower_of(optimizer) is not None:
            raise RWalkError(
                "another RWalk is attached to this optimizer: detach() it first (RWalk.release(optimizer) does, if it "
                "is out of reach), or use one RWalk (one plugin) only"
            )
        sharing = _sharing(rwalk.protected()) if alone else None
        if sharing is not None:
            raise RWalkError(
                f"another RWalk is attached to an optimizer ({type(sharing).__name__}) that holds some of the same "
                "parameters, and each would penalise them: detach() it first (RWalk.release(its_optimizer) does, if it "
                "is out of reach), or give each optimizer parameters of its own"
            )
        self.rwalk = rwalk
        self._optimizer = optimizer
        self._handles = [
            optimizer.register_step_pre_hook(self._before),
            optimizer.register_step_post_hook(self._after),
        ]
        self._read: list[tuple[Tensor, int]] | None = None  # gradients as before_step left them, until the step ends
        self._caller: FrameType | None = None  # who called the step that was read
        self._closure: Callable[[], Any] | None = None
        self._nested = 0
        _watch_all_optimizers()
        if alone:
            _FOLLOWED[optimizer] = ref(self)

    def remove(self) -> None:
        """Stop following."""
        for handle in self._handles:
            handle.remove()
        self.forget()
        if _follower_of(self._optimizer) is self:
            del _FOLLOWED[self._optimizer]

    def forget(self) -> None:
        """Whatever step was read, it has ended."""
        self._read = self._caller = self._closure = None

    def is_first(self) -> bool:
        """Whether this comes before the RWalk that follows the optimizer too, and so changes the gradients it reads."""
        other = _follower_of(self._optimizer)
        return other is not None and other is not self and self._handles[0].id < other._handles[0].id

    def is_stepping(self) -> bool:
        """Whether the optimizer is in the middle of a step that is followed."""
        return self._caller is not None and _is_running(self._caller)

    def _before(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        closure = _closure_in(args, kwargs)
        if self._is_nested(closure):
            self._nested += 1
            return None
        self._nested = 0
        if self._read is not None or self._caller is not None:  # the last step raised, or was interrupted
            self.forget()
            self.rwalk.abandon_step()
        self._caller = sys._getframe(1)
        if closure is None:
            self.rwalk.before_step(grad_scale=getattr(optimizer, "grad_scale", None))
            self._read = self._gradients()
            return None
        if not _runs_its_closure_first(optimizer):
            self.rwalk.hold_weights()
        wrapped = self._closure = self._reading_after(closure)
        return (
            tuple(wrapped if arg is closure else arg for arg in args),
            {key: wrapped if value is closure else value for key, value in kwargs.items()},
        )

    def _is_nested(self, closure: Callable[[], Any] | None) -> bool:
        """Whether this is ``super().step()`` of a step that was read already: torch runs the hooks there once more."""
        if closure is not None:
            return closure is self._closure
        return self._read is not None and (_is_running(self._caller) or self._is_unchanged(self._read))

    def _is_unchanged(self, read: list[tuple[Tensor, int]]) -> bool:
        now = self._gradients()
        pairs = zip(read, now, strict=False)
        return len(now) == len(read) and all(a is b and old == new for (a, old), (b, new) in pairs)

    def _gradients(self) -> list[tuple[Tensor, int]]:
        gradients = [p.grad for group in self._optimizer.param_groups for p in group["params"] if p.grad is not None]
        return [(gradient, gradient._version) for gradient in gradients]

    def _reading_after(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        calls = 0

        def wrapped() -> Any:
            nonlocal calls
            calls += 1
            if calls > 1:
                self._read = None
                self.rwalk.after_step(skipped=True)
                raise RWalkError(
                    f"{type(self._optimizer).__name__} called its closure {calls} times in one step, so there is no "
                    "one gradient to score: use an optimizer that calls it once"
                )
            with torch.enable_grad():
                loss = closure()
            self.rwalk.before_step(held=True)
            self._read = self._gradients()
            return loss

        return wrapped

    def _after(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._nested:
            self._nested -= 1
            return
        if self._caller is None:  # it called super().step() without the closure, and that step has ended
            return
        if self._read is None and _closure_in(args, kwargs) is not None:
            self.forget()
            raise RWalkError(
                f"{type(optimizer).__name__} did not call the closure that its step() was given, so RWalk could not "
                "read the gradient, and the weights may have moved unseen: call step() without the closure, after "
                "backward(), or have step() call it"
            )
        found_inf = getattr(optimizer, "found_inf", None)
        try:
            self.rwalk.after_step(skipped=False if found_inf is None else found_inf)
        except Exception:
            self.forget()
            raise
        self.forget()  # interrupted before, the step is still to be ended


def _closure_in(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Callable[[], Any] | None:
    """The closure among what a step is called with; the optimizer comes first."""
    return kwargs.get("closure") or next((arg for arg in args[1:] if callable(arg)), None)


def _runs_its_closure_first(optimizer: Optimizer) -> bool:
    """Whether the step is one of torch's own, which touch no weight before their closure has run."""
    return type(optimizer).step.__module__.startswith("torch.optim.")


def _is_running(frame: FrameType | None) -> bool:
    """Whether a call is still going on, further up."""
    above: FrameType | None = sys._getframe(1)
    while above is not None and above is not frame:
        above = above.f_back
    return above is not None


def is_inner_step(optimizer: Optimizer) -> bool:
    """Whether the hook that asks was called for a step within another one of the optimizer, its parent class's."""
    hooked = sys._getframe(2)  # torch's wrapper of a class's step, who calls the hook
    above = hooked.f_back
    while above is not None:
        if above.f_code is hooked.f_code and above.f_locals.get("args", (None,))[0] is optimizer:
            return True
        above = above.f_back
    return False


_FOLLOWED: WeakKeyDictionary[Optimizer, ref[OptimizerHooks]] = WeakKeyDictionary()


def _follower_of(optimizer: Optimizer) -> OptimizerHooks | None:
    held = _FOLLOWED.get(optimizer)
    return None if held is None else held()


@cache
def _watch_all_optimizers() -> None:
    # Once and for good: torch walks through its common hooks in each step, when none may be taken away.
    register_optimizer_step_pre_hook(_refuse_unseen_step)


def _refuse_unseen_step(optimizer: Optimizer, *_: Any) -> None:
    if not _FOLLOWED or _is_followed(optimizer):
        return
    moved = {id(p) for group in optimizer.param_groups for p in group["params"]}
    sharing = _sharing(moved, stepping=False)
    if sharing is not None:
        raise RWalkError(
            f"{type(optimizer).__name__} is about to move parameters that RWalk follows through another optimizer "
            f"({type(sharing).__name__}), and would not see this step: call rwalk.detach() and rwalk.attach(optimizer) "
            "with the new one (RWalk.release(old_optimizer) if the RWalk is out of reach)"
        )


def _is_followed(optimizer: Optimizer) -> bool:
    """Whether it is followed, or the one inside it that takes its steps."""
    if optimizer in _FOLLOWED:
        return True
    return any(_is_followed(value) for value in vars(optimizer).values() if isinstance(value, Optimizer))


def _sharing(parameters: set[int], *, stepping: bool = True) -> Optimizer | None:
    """An optimizer whose RWalk protects some of these parameters.

    Args:
        parameters: By identity.
        stepping: Count one that is in the middle of a step too.
    """
    if next(_candidates(parameters, stepping), None) is None:
        return None
    gc.collect()  # an RWalk that was dropped with its optimizer lives on until then, and minds no longer
    return next(_candidates(parameters, stepping), None)


def _candidates(parameters: set[int], stepping: bool) -> Iterator[Optimizer]:
    for followed in list(_FOLLOWED):
        follower = _follower_of(followed)
        shares = follower is not None and parameters & follower.rwalk.protected()
        if follower is not None and shares and (stepping or not follower.is_stepping()):
            yield followed


class LoadingHook:
    """A hook of a module's ``load_state_dict``, as a base."""

    def __reduce__(self) -> Any:
        """A copy of the model watches nothing, and needs no rwalk where it is unpickled: a log of level -1 is void."""
        return partial, (logging.getLogger("rwalk").log, -1)


class _Loaded(LoadingHook):
    """Called when ``load_state_dict`` is through with a module: tells whose weights it may have replaced."""

    def __init__(self, replaced: Callable[[], None]) -> None:
        self._replaced = WeakMethod(replaced)
        self.before: list[Any] | None = None  # None too where a module loads in a way of its own: it may be anything

    def __call__(self, module: nn.Module, *_: Any) -> None:
        before, self.before = self.before, None
        replaced = self._replaced()
        if replaced is not None and (before is None or before != _written(module)):
            replaced()


class _Loads(LoadingHook):
    """Called before ``load_state_dict`` fills a module: notes its parameters, unless there is something for these."""

    def __init__(self, names: list[str], loaded: _Loaded) -> None:
        self._names, self._loaded = names, loaded

    def __call__(self, module: nn.Module, state_dict: Mapping[str, Any], prefix: str, *_: Any) -> None:
        given = any(prefix + name in state_dict for name in self._names)
        self._loaded.before = None if given else _written(module)


def _written(module: nn.Module) -> list[Any]:
    """What tells whether one of a module's own parameters was replaced or written to."""
    return [(id(p), p._version) for p in module._parameters.values() if p is not None and not p.is_inference()]


def watch_loading(model: nn.Module, parameters: set[int], replaced: Callable[[], None]) -> list[RemovableHandle]:
    """Have a bound method called whenever ``load_state_dict`` replaces some of a model's parameters.

    Args:
        model: The model; it may be loaded as a whole, or module by module.
        parameters: Which of its parameters, by identity. That others are loaded (a target network's) is not told.
        replaced: What to call.
    """
    handles: list[RemovableHandle] = []
    for module in model.modules():
        names = [name for name, parameter in module._parameters.items() if id(parameter) in parameters]
        if names:
            loaded = _Loaded(replaced)
            if type(module)._load_from_state_dict is nn.Module._load_from_state_dict:
                handles.append(module.register_load_state_dict_pre_hook(_Loads(names, loaded)))
            handles.append(module.register_load_state_dict_post_hook(loaded))
    return handles
