"""The halves of a step in torch's own operations: on any device, for any dtype, tile by tile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rwalk.core import functional as F
from rwalk.core.config import RWalkConfig
from rwalk.core.parts import Part, Tile, tile_size
from rwalk.core.rounding import store
from rwalk.core.sharding import local

__all__ = ["Eager"]


class Eager:
    """Runs the equations as they stand in ``functional`` on tiles that stay in the cache.

    Between the halves of a step, ``gradient`` holds the gradient (unscaled, without penalty), ``before`` the weights.
    """

    name = "eager"

    def __init__(self) -> None:
        self._scratch: dict[tuple[torch.device, torch.dtype, int], Tensor] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Scratch memory is not worth copying."""
        return {"_scratch": {}}

    def read(
        self,
        part: Part,
        config: RWalkConfig,
        *,
        grad_scale: Tensor | float | None,
        measured: Sequence[Tensor] | None,
        penalised: bool,
    ) -> None:
        """Keep gradients and weights; add the penalty's gradient.

        Args:
            part: Whose.
            config: For the strength.
            grad_scale: The factor by which gradients are still scaled.
            measured: What counts as gradient; the gradients themselves if None.
            penalised: Whether there is a penalty to add.
        """
        parameters = part.parameters
        for tile in part.tiles:
            found = tile.cut(measured or part.gradients)
            if grad_scale is None:
                torch._foreach_copy_(tile.views("gradient"), found)
            else:
                plain = self._room(tile, 0)
                torch._foreach_copy_(tile.cut_flat(plain), found)
                tile.bucket.require("gradient")[0][tile.flat].copy_(plain.div_(grad_scale))
            torch._foreach_copy_(tile.views("before"), tile.cut(parameters))
            if penalised:
                importance, before, anchor = tile.load("importance"), tile.load("before"), tile.load("anchor")
                pull = F.penalty_gradient(importance, before, anchor, config.strength, out=self._room(tile, 1))
                if grad_scale is not None:
                    pull.mul_(grad_scale)
                torch._foreach_add_(tile.cut(part.gradients), tile.cut_flat(pull))

    def account(self, part: Part, config: RWalkConfig, *, rates: Sequence[float] | None, step: int) -> None:
        """Bring Fisher, loss change and (where a window is one step) score up to date. Uses ``before`` up.

        Args:
            part: Whose.
            config: For the window's kind and the score's settings.
            rates: For each parameter the weight of its new squared gradient; None leaves the Fisher as it is.
            step: Number of the step, the seed of random rounding.
        """
        parameters = part.parameters
        for tile in part.tiles:
            gradient = tile.load("gradient")
            if rates is not None:
                fisher = tile.load("fisher")
                self._update_fisher(tile, fisher, gradient, rates)
                store(tile, "fisher", fisher, step)
            if config.sums_by_parts and not tile.bucket.storage.is_elsewhere("window_start", tile.bucket.device):
                change, moved = tile.load("loss_change"), self._room(tile, 1)
                start, before = tile.load("window_start"), tile.load("before")
                F.loss_change(change, gradient, torch.sub(before, start, out=moved), out=change)  # by parts
                F.loss_change(change, gradient, self._moved(tile, config, parameters), out=change)
                continue
            torch._foreach_sub_(tile.views("before"), tile.cut(parameters))
            decrease = tile.load("before")
            if config.window == "step":
                change = torch.mul(gradient, decrease, out=self._room(tile, 1))
                self._add_score(tile, config, change, decrease, config.damping_value, step)
                continue
            change = tile.load("loss_change")
            store(tile, "loss_change", F.loss_change(change, gradient, decrease, out=change), step)
            if config.window == "displaced":
                displacement = tile.load("displacement")
                store(tile, "displacement", displacement.add_(decrease), step)

    def advance(
        self,
        part: Part,
        config: RWalkConfig,
        *,
        rates: Sequence[float] | None,
        late: Sequence[float] | None,
        opens: bool,
        penalised: bool,
    ) -> None:
        """Settle the last step, keep the gradient for the next one to settle, and add the penalty's gradient.

        Args:
            part: Whose.
            config: For the strength.
            rates: For each parameter the weight of its squared gradient; None keeps it out of the Fisher for now.
            late: The same of the gradient kept so far.
            opens: A window begins here: the weights are its start, and no step is to be settled.
            penalised: Whether there is a penalty to add.
        """
        parameters = part.parameters
        for tile in part.tiles:
            gradient, weights = self._room(tile, 0), self._room(tile, 1)
            torch._foreach_copy_(tile.cut_flat(gradient), tile.cut(part.gradients))
            torch._foreach_copy_(tile.cut_flat(weights), tile.cut(parameters))
            kept = tile.load("gradient")
            if late is not None:
                self._update_fisher(tile, tile.load("fisher"), kept, late)
            if rates is not None:
                self._update_fisher(tile, tile.load("fisher"), gradient, rates)
            if opens:
                tile.load("window_start").copy_(weights)
            else:
                change, start, moved = tile.load("loss_change"), tile.load("window_start"), self._room(tile, 2)
                F.loss_change(change, kept, torch.sub(start, weights, out=moved), out=change)
                F.loss_change(change, gradient, moved.neg_(), out=change)
            kept.copy_(gradient)
            if penalised:
                importance, anchor = tile.load("importance"), tile.load("anchor")
                pull = F.penalty_gradient(importance, weights, anchor, config.strength, out=gradient)
                torch._foreach_add_(tile.cut(part.gradients), tile.cut_flat(pull))

    def settle(self, part: Part, config: RWalkConfig, *, late: Sequence[float] | None) -> None:
        """Account for the step whose gradient is kept, the weights being where it has brought them.

        Args:
            part: Whose.
            config: For the way a window's displacement is known.
            late: For each parameter the weight of the kept gradient's square in the Fisher; None if it is in.
        """
        parameters = part.parameters
        for tile in part.tiles:
            gradient, change = tile.load("gradient"), tile.load("loss_change")
            F.loss_change(change, gradient, self._moved(tile, config, parameters), out=change)
            if late is not None:
                self._update_fisher(tile, tile.load("fisher"), gradient, late)
            gradient.zero_()

    def take_back(self, part: Part, *, rates: Sequence[float] | None) -> None:
        """Undo ``advance`` for a step that is not taken after all, up to rounding.

        The rounding is that of the squared gradient which is taken away. An element whose gradient is not finite cannot
        be brought back: it loses what its open window has gathered, and its Fisher starts from 0.

        Args:
            part: Whose.
            rates: With what weights the squared gradients have entered the Fisher; None if they have not.
        """
        for tile in part.tiles:
            gradient, change, fisher = (tile.load(name) for name in ("gradient", "loss_change", "fisher"))
            lost = gradient.isfinite().logical_not_()
            for values in (gradient, change):  # what is kept of the rest cancels when it is settled
                values.masked_fill_(lost, 0.0)
            if rates is None:
                continue
            for piece, rate in _by_rate(tile, rates):
                if rate < 1.0:
                    fisher[piece] = F.fisher_without(fisher[piece], gradient[piece], rate)
            fisher.masked_fill_(lost, 0.0)

    def close(
        self, part: Part, config: RWalkConfig, *, damping: float | Tensor, step: int, settles: bool = False
    ) -> None:
        """Turn a window's loss change into a score and add it.

        Args:
            part: Whose.
            config: For the score's settings.
            damping: What is added to the distance, a number or a scalar tensor.
            step: Number of the step, the seed of random rounding.
            settles: The last step has yet to be settled.
        """
        parameters = part.parameters
        for tile in part.tiles:
            change, moved = tile.load("loss_change"), self._moved(tile, config, parameters)
            if settles:
                F.loss_change(change, tile.load("gradient"), moved, out=change)
            self._add_score(tile, config, change, moved, damping, step)
            tile.bucket.require("loss_change")[0][tile.flat].zero_()

    def distance(self, part: Part, config: RWalkConfig) -> Tensor:
        """The window's distance, summed over these parameters: a scalar tensor."""
        parameters = part.parameters
        sums = []
        for tile in part.tiles:
            moved = self._moved(tile, config, parameters)
            sums.append(F.riemannian_distance(_measure(tile, config), moved, config.distance_factor, out=moved).sum())
        return torch.stack(sums).sum() if sums else torch.zeros(())

    def pull(self, part: Part, config: RWalkConfig, *, rates: Sequence[float]) -> None:
        """Take the penalty's proximal step on the weights; ``rates`` are the parameters' learning rates."""
        originals = [local(entry.parameter) for entry in part.watched]
        parameters = part.parameters
        for tile in part.tiles:
            weights, importance, anchor = self._room(tile, 0), tile.load("importance"), tile.load("anchor")
            torch._foreach_copy_(tile.cut_flat(weights), tile.cut(parameters))
            for piece, rate in _by_rate(tile, rates):
                weights[piece] = F.proximal_step(
                    importance[piece], weights[piece], anchor[piece], config.strength, rate
                )
            torch._foreach_copy_(tile.cut(parameters), tile.cut_flat(weights))
        for original, parameter in zip(originals, parameters, strict=True):
            if parameter is not original:
                original.copy_(parameter)

    def _moved(self, tile: Tile, config: RWalkConfig, parameters: Sequence[Tensor]) -> Tensor:
        if config.window == "displaced":
            return self._room(tile, 0).copy_(tile.load("displacement"))
        moved = self._room(tile, 0).copy_(tile.load("window_start"))
        torch._foreach_sub_(tile.cut_flat(moved), tile.cut(parameters))
        return moved

    def _update_fisher(self, tile: Tile, fisher: Tensor, gradient: Tensor, rates: Sequence[float]) -> None:
        for piece, rate in _by_rate(tile, rates):
            F.fisher_ema(fisher[piece], gradient[piece], rate, out=fisher[piece])

    def _add_score(
        self, tile: Tile, config: RWalkConfig, change: Tensor, moved: Tensor, damping: float | Tensor, step: int
    ) -> None:
        distance = F.riemannian_distance(_measure(tile, config), moved, config.distance_factor, out=moved)
        gained = F.path_score(change, distance, damping, out=distance)
        if config.rectify == "window":
            gained.clamp_(min=0.0)
        score = tile.load(config.scored)
        store(tile, config.scored, score.add_(gained), step)

    def _room(self, tile: Tile, which: int) -> Tensor:
        bucket = tile.bucket
        key = (bucket.device, bucket.dtype, which)
        if key not in self._scratch or len(self._scratch[key]) < tile.size:
            size = min(tile_size(bucket.device), bucket.size)
            self._scratch[key] = torch.empty(size, dtype=bucket.dtype, device=bucket.device)
        return self._scratch[key][: tile.size]


def _measure(tile: Tile, config: RWalkConfig) -> Tensor | None:
    if config.distance == "euclidean":
        return None
    return tile.load("window_fisher" if config.fisher_in_score == "window_start" else "fisher")


def _by_rate(tile: Tile, rates: Sequence[float]) -> list[tuple[slice, float]]:
    """Stretches of a tile with one rate each."""
    found: list[tuple[slice, float]] = []
    begin = 0
    for index, _, start, stop in tile.pieces:
        end, rate = begin + stop - start, rates[index]
        if found and found[-1][1] == rate:
            found[-1] = (slice(found[-1][0].start, end), rate)
        else:
            found.append((slice(begin, end), rate))
        begin = end
    return found
