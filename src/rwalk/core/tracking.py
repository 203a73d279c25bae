"""Which parameters are in play: the model's names, the optimizer's groups and the state, held together.

The state is the model's. Of the optimizer only what it moves now is asked: a parameter that it does not hold, or that
has no gradient, rests.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from rwalk.core.config import RWalkConfig
from rwalk.core.names import named_parameters, selected_parameters, selects
from rwalk.core.proximal import check_rates
from rwalk.core.sharding import ORDINARY, is_sharded, layout, local
from rwalk.core.state import Bucket, Cohort, Placement, Tracked, arrange, joined
from rwalk.errors import RWalkError

__all__ = ["Tracker", "is_accelerator"]

log = logging.getLogger(__name__)


def is_accelerator(device: torch.device) -> bool:
    """Whether what runs there goes on beside the host."""
    return device.type != "cpu"


class Tracker:
    """Follows a model and its optimizer, and lays out state for whatever receives a gradient.

    Args:
        model: The model; its parameter names key the state.
        optimizer: The optimizer; only what it moves takes steps.
        config: Chooses among the names.

    Raises:
        RWalkError: The optimizer holds none of the model's selected parameters, or maximises.

    Attributes:
        entries: The parameters that the optimizer moves or that have state, in the model's order.
        moved: Those of them that the optimizer moves now.
        buckets: Their state.
        is_elsewhere: Whether some of it is on another device than the CPU.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer, config: RWalkConfig) -> None:
        self.model, self.optimizer, self.config = model, optimizer, config
        self.buckets: list[Bucket] = []
        self.entries: list[Tracked] = []
        self.moved: list[Tracked] = []
        self._signature: list[list[int]] = []
        self._checked = False
        self._cohorts: tuple[list[Tracked], list[Cohort]] = ([], [])
        self.is_elsewhere = False
        self.match()
        if not self.moved:
            raise RWalkError(
                f"the optimizer ({type(optimizer).__name__}) holds none of the parameters of {type(model).__name__} "
                f"that include={config.include!r}, exclude={config.exclude!r} select: "
                "build it from model.parameters(), or widen the patterns"
            )

    def __getstate__(self) -> dict[str, Any]:
        """Parameters are known by address, of which a copy has others; cohorts are laid out anew."""
        return {**vars(self), "_cohorts": ([], []), "_signature": []}

    def has_changed(self) -> bool:
        """Whether the optimizer holds other parameters than when they were last matched, or maximises since."""
        groups = self.optimizer.param_groups
        if [list(map(id, group["params"])) for group in groups] != self._signature:
            return True
        return any(group.get("maximize") for group in groups)

    def match(self) -> None:
        """Match the optimizer's parameters with the model's names.

        A parameter under a new name keeps its state. One that leaves the optimizer keeps its open window, with the
        weights that it leaves with; when it returns, what has moved it since is no part of the walk.

        Raises:
            RWalkError: The optimizer maximises, or has no learning rate where the config needs one.
        """
        groups = self.optimizer.param_groups
        if any(group.get("maximize") for group in groups):
            raise RWalkError(
                "the optimizer has maximize=True: RWalk scores a loss that falls; minimise its negative instead"
            )
        check_rates(self.optimizer, self.config)
        named = named_parameters(self.model)
        group_of = {id(p): index for index, group in enumerate(groups) for p in group["params"]}
        by_name = {entry.name: entry for entry in self.entries}
        by_parameter = {id(entry.parameter): entry for entry in self.entries}
        found: dict[Tracked, None] = {}
        for name, present in named.items():
            entry = by_parameter.get(id(present)) or by_name.get(name)
            stays = entry is not None and id(entry.parameter) in group_of and id(present) not in group_of
            parameter = (
                entry.parameter if entry is not None and stays else present
            )  # if it stays though the model has another, check() tells
            has_state = entry is not None and entry.placement is not None
            group = group_of.get(id(parameter)) if has_state or selects(self.config, name) else None
            if entry is None and group is not None:
                self._check_source(name, parameter)
                entry = Tracked(name, parameter)
            if entry is not None and (has_state or group is not None):
                self._move(entry, parameter, group)
                entry.name = name
                found[entry] = None
        for entry in self.entries:
            if entry not in found and entry.placement is not None:  # the model has it no longer: check() tells
                self._move(entry, entry.parameter, group_of.get(id(entry.parameter)))
                found[entry] = None
        self.entries, self.moved = list(found), [entry for entry in found if entry.group is not None]
        self._signature = [list(map(id, group["params"])) for group in groups]
        self._checked = False

    def check(self) -> None:
        """Make sure that names are up to date, and that the parameters followed are the model's.

        Raises:
            RWalkError: The model has others in their place, or none.
        """
        present = named_parameters(self.model)
        if any(present.get(entry.name) is not entry.parameter for entry in self.entries):
            self.match()
        for entry in self.entries:
            if entry.name not in present:
                raise RWalkError(
                    f"the model no longer has {entry.name!r}, whose importances are kept, nor the parameter under "
                    "another name: a parametrization such as weight_norm puts others in its place. Put it back, or "
                    "start a new RWalk"
                )
            if present[entry.name] is not entry.parameter:
                raise RWalkError(
                    f"{entry.name!r} of the model is no longer the parameter that the optimizer moves: it was replaced "
                    "after the optimizer was built (fully_shard does that, and assigning a new module). Wrap the model "
                    "first, then build the optimizer, then RWalk"
                )

    def follow(self, model: nn.Module, optimizer: Optimizer) -> None:
        """Go on with another optimizer or model; every parameter that has state must be found in it.

        Raises:
            RWalkError: One is not found, or as for a new one; then nothing changes.
        """
        Tracker(model, optimizer, self.config)  # raises what there is to raise
        found = named_parameters(model)
        known = {id(parameter) for parameter in found.values()}
        for entry in self.entries:
            if entry.placement is not None and entry.name not in found and id(entry.parameter) not in known:
                raise RWalkError(
                    f"the model no longer has {entry.name!r}, whose importances are kept: the model was "
                    "replaced by a different one; start a new RWalk for it"
                )
        self.model, self.optimizer = model, optimizer
        self.match()

    def with_gradient(self) -> tuple[list[Tracked], list[Tensor], bool]:
        """The parameters that take part in this step, their gradients, and whether state lies ready for them."""
        entries: list[Tracked] = []
        gradients: list[Tensor] = []
        ready = True
        for entry in self.moved:
            parameter = entry.parameter
            gradient = parameter.grad
            if gradient is None:
                continue
            seen = (parameter.shape, parameter.device, parameter.dtype)
            ready = ready and seen == entry.seen
            plain = type(gradient) is Tensor and type(parameter) in ORDINARY
            if not plain or (gradient.shape, gradient.device, gradient.dtype) != seen:
                gradient = _fitting(entry, gradient)
            elif entry.placement is None or gradient.layout is not torch.strided:
                _check_gradient(entry.name, parameter, gradient)
            entries.append(entry)
            gradients.append(gradient)
        if not (entries and self._checked):  # once, and where nothing is learned
            self.check()
            self._checked = True
        return entries, gradients, ready and len(entries) == len(self.moved)

    def cohorts(self, entries: list[Tracked]) -> list[Cohort]:
        """These parameters, by bucket; those asked for last are at hand."""
        known, cohorts = self._cohorts
        if entries != known or not cohorts:
            cohorts = self.grouped(entries)
            self._cohorts = (entries, cohorts)
        return cohorts

    def forget_cohorts(self) -> None:
        """Lay out anew what is kept from step to step."""
        self._cohorts = ([], [])

    def grouped(self, entries: Iterable[Tracked]) -> list[Cohort]:
        """These parameters, by bucket."""
        chosen = list(entries)
        listed = [(bucket, [entry for entry in chosen if entry in bucket.starts]) for bucket in self.buckets]
        return [Cohort(bucket, members) for bucket, members in listed if members]

    def resident(self, but: Sequence[Tracked] = ()) -> list[Cohort]:
        """All parameters that have state, but for some."""
        apart = set(but)
        return self.grouped([e for e in self.entries if e.placement is not None and e not in apart])

    def make_room(self, joining: Sequence[Tracked] = (), *, before: Callable[[], None] = lambda: None) -> None:
        """Match the state with the parameters' present shapes, devices and dtypes.

        Elements without history take the parameter's current value as window start and as anchor.

        Args:
            joining: Parameters that are to have state, if they have none.
            before: Called before anything is laid out in another way.

        Raises:
            RWalkError: A parameter is sharded in another way than before.
        """
        seen, changed = {}, []
        for entry in dict.fromkeys([*(e for e in self.entries if e.placement is not None), *joining]):
            parameter = entry.parameter
            now = (parameter.shape, parameter.device, parameter.dtype)
            if now != entry.seen or entry.placement is None:
                seen[entry] = now
                if entry.placement != Placement.of(parameter):
                    changed.append(entry)
        if changed:
            before()
            self._place(changed)
        for entry, now in seen.items():  # once that has succeeded
            entry.seen = now

    def _place(self, changed: Sequence[Tracked]) -> None:
        for entry in changed:
            if entry.placement is not None and entry.placement.layout != layout(entry.parameter):
                raise RWalkError(
                    f"{entry.name} is sharded over processes in another way than when its state was made: wrap the "
                    "model before RWalk is made or loaded; to go on in another layout, save() in the first and load() "
                    "in the second"
                )
        known = {entry: bucket.shapes[entry] for bucket in self.buckets for entry in bucket.starts}
        placements = {entry: Placement.of(entry.parameter) for entry in changed}
        needed = {e: e.placement for bucket in self.buckets for e in bucket.starts if e.placement is not None}
        self.buckets = arrange(self.buckets, {**needed, **placements}, compact=self.config.state_dtype == "bfloat16")
        self._cohorts = ([], [])
        self.is_elsewhere = any(is_accelerator(bucket.device) for bucket in self.buckets)
        remembered = ["window_start"] if self.config.window == "start" else []
        remembered += ["anchor"] if any("anchor" in bucket.flat for bucket in self.buckets) else []
        for entry, placement in placements.items():
            entry.placement = placement
            present = local(entry.parameter).detach()
            if entry.held is not None:
                present, entry.held = entry.held, None
                self.view(entry, "before").copy_(present)
            for quantity in remembered:
                view = self.view(entry, quantity)
                if entry not in known:
                    view.copy_(present)
                elif known[entry] != placement.shape:
                    new = joined(known[entry], placement.shape).to(view.device)
                    view.copy_(torch.where(new, present.to(view), view))

    def view(self, entry: Tracked, quantity: str) -> Tensor:
        """A quantity of one parameter that has state."""
        return next(bucket for bucket in self.buckets if entry in bucket.starts).view(entry, quantity)

    def peaks(self, quantity: str) -> dict[Tracked, float]:
        """The largest element of a quantity, for each parameter that has state (and elements)."""
        views = {entry: bucket.view(entry, quantity) for bucket in self.buckets for entry in bucket.starts}
        return {entry: float(view.max()) for entry, view in views.items() if view.numel()}

    def _move(self, entry: Tracked, parameter: nn.Parameter, group: int | None) -> None:
        """The parameter leaves the optimizer, returns, or another takes its place: jumps are no part of the walk."""
        leaves, returns = entry.group is not None and group is None, entry.group is None and group is not None
        other = parameter is not entry.parameter
        known = entry.placement is not None and entry.placement == Placement.of(parameter)
        if known and self.config.window == "start":
            if leaves and not other:
                moved = bool(self.view(entry, "loss_change").any())
                entry.left_at = entry.weights.clone() if moved else None
            elif group is not None and (returns or other):
                start, now = self.view(entry, "window_start"), local(parameter).detach()
                if returns and entry.left_at is None:  # its window has ended since
                    start.copy_(now)
                else:
                    start.add_(now.to(start) - entry.weights.to(start))
        if group is not None:
            entry.left_at = None
        if other:
            entry.seen = None
        entry.parameter, entry.group = parameter, group

    def without_state(self, names: Iterable[str]) -> Tracker:
        """A tracker of the same model and optimizer that has no state yet, for parameters of these names too."""
        aside = copy(self)
        aside.entries, aside.moved, aside.buckets, aside._cohorts = [], [], [], ([], [])
        aside.match()
        present, known = selected_parameters(self.model, self.config), {entry.name for entry in aside.entries}
        aside.entries += [Tracked(name, present[name]) for name in names if name in present and name not in known]
        return aside

    def note_absent(self) -> None:
        """What the optimizer does not move, of what has just been read: its open window stays as it is."""
        for entry in self.entries if self.config.window == "start" else ():
            if entry.group is None and entry.placement is not None and bool(self.view(entry, "loss_change").any()):
                entry.left_at = entry.weights.clone()

    def replace_state(self, other: Tracker) -> None:
        """Go on with what another tracker of the same model and optimizer holds."""
        self.entries, self.moved, self.buckets = other.entries, other.moved, other.buckets
        self._signature = other._signature
        self._cohorts, self._checked, self.is_elsewhere = ([], []), False, other.is_elsewhere

    def _check_source(self, name: str, parameter: Tensor) -> None:
        if self.config.fisher_source != "step" and is_sharded(parameter):
            raise RWalkError(
                f"fisher_source={self.config.fisher_source!r} needs whole parameters, and {name} is sharded over "
                "processes: take fisher_source='step'"
            )

    def tell_idle_patterns(self) -> None:
        """Log the patterns of the config that match no parameter's name."""
        names = list(named_parameters(self.model))
        for setting in ("include", "exclude"):
            for pattern in getattr(self.config, setting):
                if not any(fnmatchcase(name, pattern) for name in names):
                    near = get_close_matches(pattern, names, n=1, cutoff=0.0)
                    log.warning(
                        "%s: the pattern %r matches no parameter of %s; its names are like %r (a whole module is "
                        "'module.*')",
                        setting,
                        pattern,
                        type(self.model).__name__,
                        near[0] if near else "",
                    )


def _fitting(entry: Tracked, gradient: Tensor) -> Tensor:
    """What this process holds of a gradient that is not simply like its parameter."""
    if type(gradient) is not Tensor and layout(gradient) != layout(entry.parameter):
        raise RWalkError(
            f"the gradient of {entry.name} is spread over processes in another way than the parameter: "
            "redistribute() it to the parameter's placements before the optimizer steps"
        )
    gradient = local(gradient)
    _check_gradient(entry.name, local(entry.parameter), gradient)
    return gradient


def _check_gradient(name: str, parameter: Tensor, gradient: Tensor) -> None:
    if parameter.device.type == "meta":
        raise RWalkError(f"{name} is on the meta device, where nothing is computed: move the model to a device first")
    if gradient.layout is not torch.strided:
        raise RWalkError(
            f"{name} has a {gradient.layout} gradient: RWalk needs dense ones; use sparse=False in its layer, or leave "
            f"it out with exclude=({name!r},)"
        )
    if gradient.is_complex():
        raise RWalkError(f"{name} is complex: RWalk needs real parameters; leave it out with exclude=({name!r},)")
    if gradient.shape != parameter.shape or gradient.device != parameter.device:
        raise RWalkError(
            f"{name} is of shape {tuple(parameter.shape)} on {parameter.device}, its gradient of shape "
            f"{tuple(gradient.shape)} on {gradient.device}: the parameter's data was replaced after backward(); clear "
            "its gradient when you replace it"
        )
