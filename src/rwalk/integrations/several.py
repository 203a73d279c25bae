"""Several optimizers of one model, as Muon beside AdamW or the two sides of a GAN: an RWalk for each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from rwalk.core import RWalk, RWalkConfig
from rwalk.core.hooks import base_optimizer
from rwalk.core.names import selected_parameters
from rwalk.errors import RWalkError
from rwalk.integrations.lora_names import AdaptersSeen, without_gone

__all__ = ["RWalkGroup"]


class RWalkGroup:
    """One RWalk for each optimizer that holds protected parameters; importances are scaled over each one's own.

    Args:
        config: Settings of all; if None, those of a state that is loaded first, else ``RWalkConfig()``.

    Attributes:
        rwalks: The cores, by the optimizer's place among the model's optimizers; empty until the first ``attach``.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
        >>> optimizers = [torch.optim.Adam([model[0].weight]), torch.optim.SGD(model[1].parameters(), lr=0.1)]
        >>> group = RWalkGroup(RWalkConfig(ewc_lambda=1.0))
        >>> group.attach(model, optimizers)
        >>> sorted(group.rwalks)
        [0, 1]
    """

    def __init__(self, config: RWalkConfig | None = None) -> None:
        self.config = config
        self.rwalks: dict[int, RWalk] = {}
        self._adapters = AdaptersSeen()
        self._saved: dict[int, dict[str, Any]] = {}
        self._is_placed = True  # whether the numbers in it are optimizers' places

    @property
    def waits(self) -> bool:
        """Whether a state was loaded that no ``attach`` has taken up yet."""
        return bool(self._saved)

    def follows(self, optimizers: Sequence[Optimizer]) -> bool:
        """Whether the optimizers that are followed are these, and not others that were put in their place."""
        present = [base_optimizer(optimizer) for optimizer in optimizers]
        return all(index < len(present) and rwalk.optimizer is present[index] for index, rwalk in self.rwalks.items())

    def attach(self, model: nn.Module, optimizers: Sequence[Optimizer]) -> None:
        """Follow these optimizers from now on, in place of those before, and take up a state that was loaded.

        Raises:
            RWalkError: A parameter is in two of them, none holds protected parameters, one whose importances are kept
                is missing, or as ``RWalk.attach``.
        """
        if self.config is None:
            saved = next(iter(self._saved.values()), None)
            self.config = RWalkConfig() if saved is None else RWalkConfig.from_dict(saved["config"])
        chosen = _protected(model, optimizers, self.config)
        if not self._is_placed:
            self._saved, self._is_placed = _placed(self._saved, model, chosen, self.config), True
        lost = {*self.rwalks, *self._saved} - set(chosen)
        if lost:
            raise RWalkError(
                f"importances are kept for the parameters of optimizer {min(lost)}, and only {sorted(chosen)} of the "
                f"{len(optimizers)} optimizers hold protected parameters: give them as before"
            )
        self.detach()
        gone = self._adapters.gone(model)
        for index, optimizer in chosen.items():
            if index in self.rwalks:
                self.rwalks[index].follow(model, optimizer)
                self.rwalks[index] = without_gone(self.rwalks[index], gone)
            else:
                self.rwalks[index] = RWalk(model, optimizer, self.config, attach=False)
            if index in self._saved:
                self.rwalks[index].load_state_dict(self._saved.pop(index))
            self.rwalks[index].attach()
        self._adapters.note(model)

    def detach(self) -> None:
        """Let go of all optimizers that are followed, and of steps that were begun."""
        for rwalk in self.rwalks.values():
            if rwalk.attached:
                rwalk.detach()

    def consolidate(self, batches: Iterable[Any] | None = None, forward: Callable[[Any], Tensor] | None = None) -> None:
        """End a task, in every core or in none.

        Args:
            batches: As in ``RWalk.consolidate``, and so is ``forward``. Each core reads all of them: what can be read
                only once (a generator) is kept in memory where there are several cores.
            forward: Maps a batch to scores of classes.

        Raises:
            RWalkError: A core refuses, as ``RWalk.consolidate``. No core's task has ended then.
            TypeError: ``batches`` is a single batch.
        """
        cores = list(self.rwalks.values())
        if len(cores) > 1 and isinstance(batches, Iterator):
            batches = list(batches)
        before = [core.state_dict() for core in cores] if len(cores) > 1 else []
        try:
            for core in cores:
                core.consolidate(batches, forward)
        except BaseException:
            for core, state in zip(cores, before, strict=False):
                core.load_state_dict(state)
            raise

    def state_dict(self) -> dict[str, Any]:
        """The cores' states, by the optimizer's place; empty before there are any."""
        states = {index: rwalk.state_dict() for index, rwalk in self.rwalks.items()} | self._saved
        return {"optimizers": states, **({} if self._is_placed else {"is_placed": False})} if states else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a ``state_dict``: at once if optimizers are followed, else when ``attach`` is called next.

        Raises:
            RWalkError: It has the state of an optimizer that is not among those followed. Nothing has changed then.
            StateError: One of the states does not fit. All are as they were then.
        """
        saved = dict(state_dict["optimizers"])
        if not any(rwalk.attached for rwalk in self.rwalks.values()):
            self._saved, self._is_placed = saved, state_dict.get("is_placed", True)
            return
        lost = saved.keys() - self.rwalks.keys()
        if lost:
            raise RWalkError(
                f"the state holds importances for the parameters of optimizer {min(lost)}, and those followed now are "
                f"{sorted(self.rwalks)}: load it before training starts, with the optimizers as they were"
            )
        before = {index: self.rwalks[index].state_dict() for index in list(saved)[:-1]}  # the last one is loaded or not
        loaded: list[int] = []
        try:
            for index, state in saved.items():
                self.rwalks[index].load_state_dict(state)
                loaded.append(index)
        except BaseException:
            for index in loaded:
                self.rwalks[index].load_state_dict(before[index])
            raise

    def start_from(self, states: Sequence[dict[str, Any]]) -> None:
        """Go on from the states of single cores, each with the optimizer that holds its parameters.

        Raises:
            RWalkError: They were saved with different settings, and this group has none of its own.
        """
        if self.config is None and any(state["config"] != states[0]["config"] for state in states):
            raise RWalkError("the states to start from were saved with different settings: give the config to go on by")
        self._saved, self._is_placed = dict(enumerate(states)), False


def _placed(
    states: dict[int, dict[str, Any]], model: nn.Module, chosen: dict[int, Optimizer], config: RWalkConfig
) -> dict[int, dict[str, Any]]:
    """The states by the place of the optimizer that holds their parameters.

    Raises:
        RWalkError: One fits no optimizer, or several, or two the same.
    """
    held = {
        place: {id(p) for group in optimizer.param_groups for p in group["params"]}
        for place, optimizer in chosen.items()
    }
    names = {
        place: {name for name, p in selected_parameters(model, config).items() if id(p) in parameters}
        for place, parameters in held.items()
    }
    found: dict[int, dict[str, Any]] = {}
    of: dict[int, int] = {}
    for index, state in states.items():
        places = [place for place in names if names[place] & state["parameters"].keys()]
        if not places and len(chosen) == 1:  # RWalk says what does not fit
            places = list(chosen)
        what = f"state {index} to start from (of {_listed(state['parameters'])})"
        if not places:
            raise RWalkError(f"{what} has no parameter that the optimizers {sorted(chosen)} hold: leave it out")
        if len(places) > 1:
            theirs = " and ".join(f"{_listed(names[p] & state['parameters'].keys())} in optimizer {p}" for p in places)
            raise RWalkError(
                f"{what} is of several optimizers' parameters ({theirs}), and each optimizer has a state of its own: "
                "give one that was saved of each (callback.rwalks[i].save), or the optimizer that it was saved with"
            )
        (place,) = places
        if place in found:
            raise RWalkError(f"{what} is of the parameters of optimizer {place}, and so is state {of[place]}: give one")
        found[place], of[place] = state, index
    return found


def _listed(names: Iterable[str]) -> str:
    listed = sorted(names)
    return ", ".join(listed[:2]) + (f" and {len(listed) - 2} more" if len(listed) > 2 else "")


def _protected(model: nn.Module, optimizers: Sequence[Optimizer], config: RWalkConfig) -> dict[int, Optimizer]:
    """The optimizers that hold parameters to protect, by place; all of them if none does, so that RWalk says so."""
    holders: dict[int, list[int]] = {}
    for index, optimizer in enumerate(optimizers):
        for held in {id(p) for group in optimizer.param_groups for p in group["params"]}:
            holders.setdefault(held, []).append(index)
    found: set[int] = set()
    for name, parameter in selected_parameters(model, config).items():
        indices = holders.get(id(parameter), [])
        if len(indices) > 1:
            raise RWalkError(
                f"{name} is in optimizers {indices}, and each would hold it back: give it to one of them, or leave it "
                f"out with exclude=({name!r},)"
            )
        found.update(indices)
    return {index: optimizers[index] for index in sorted(found or range(len(optimizers)))}
