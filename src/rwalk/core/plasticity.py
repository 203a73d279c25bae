"""What a state holds and what it leaves free, of the figures that ``summarize_state`` gathers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from rwalk.core.report import HELD

__all__ = ["FREE", "NOT_KNOWN", "SATURATED", "held_layers", "shares", "warnings_of"]

#: Of the largest importance: from SATURATED on a weight is held as tightly as any; below FREE next to nothing holds it.
SATURATED, FREE = 0.9, 0.01
NOT_KNOWN: dict[str, float | None] = {"held": None, "free": None, "saturated": None}
#: Shares from which a warning says so.
ONE_LAYER, LITTLE_LEFT, MUCH_SATURATED, FAR = 0.9, 0.05, 0.5, 0.5


def shares(importance: Tensor, peak: float) -> dict[str, float]:
    """How a tensor's importances lie below the largest one of the model.

    Args:
        importance: Of one parameter, floating, ≥ 0.
        peak: The largest importance of all parameters, > 0.

    Returns:
        ``held``: share of weights with at least a tenth of the peak; ``free``: with less than a hundredth;
        ``saturated``: share of this tensor's importance that sits on weights with at least nine tenths of it.

    Example:
        >>> shares(torch.tensor([1.0, 0.5, 0.5, 0.0]), peak=1.0)
        {'held': 0.75, 'free': 0.25, 'saturated': 0.5}
    """
    count, whole = max(1, importance.numel()), float(importance.sum(dtype=torch.float64))
    at_top = float(importance[importance >= SATURATED * peak].sum(dtype=torch.float64))
    return {
        "held": int((importance >= HELD * peak).sum()) / count,
        "free": int((importance < FREE * peak).sum()) / count,
        "saturated": at_top / whole if whole > 0 else 0.0,
    }


def held_layers(parameters: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The parameters' figures by layer, and of all together as ``""``.

    Returns:
        Layer → ``weights``, ``share`` (of all importance), ``held``, ``free``, ``saturated``, ``distance``, ``drift``
        (distance over the anchor's norm); None where one is not known.
    """
    members: dict[str, list[Mapping[str, Any]]] = {}
    for name, values in parameters.items():
        members.setdefault(name.rpartition(".")[0] or name, []).append(values)
    found = {name: _together(own) for name, own in members.items()}
    return {**found, "": _together(list(parameters.values()))}


def _together(own: list[Mapping[str, Any]]) -> dict[str, Any]:
    weights, known = sum(values["elements"] for values in own), [v for v in own if v["held"] is not None]
    share = sum(values["share"] for values in known)
    moved = [values for values in own if values["distance"] is not None]
    distance = sum(values["distance"] ** 2 for values in moved) ** 0.5 if moved else None
    anchored = sum(values["norms"]["anchor"] ** 2 for values in moved) ** 0.5
    counted = {
        key: sum(values[key] * values["elements"] for values in known) / max(1, sum(v["elements"] for v in known))
        for key in ("held", "free")
    }
    weighed = sum(values["saturated"] * values["share"] for values in known)
    return {
        "weights": weights,
        "share": share if known else None,
        **(counted if known else {"held": None, "free": None}),
        "saturated": (weighed / share if share else 0.0) if known else None,
        "distance": distance,
        "drift": distance / anchored if distance is not None and anchored else None,
    }


def warnings_of(found: Mapping[str, Any], held: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What is likely to be wrong with a state, in sentences; ``held`` are its ``held_layers``."""
    whole, layers = held[""], {name: row for name, row in held.items() if name}
    told = [] if found["verified"] else ["this file has no checksums: that it is whole cannot be told"]
    if not found["tasks"]:
        return [*told, "nothing is protected yet: consolidate() or protect(batches) before saving"]
    if not whole["share"]:
        return [*told, "every importance is 0: no gradient of a past task reached a protected weight"]
    if not found["config"].get("ewc_lambda"):
        told.append("ewc_lambda is 0: nothing is held")
    if found["task_steps"]:
        told.append(
            f"saved {found['task_steps']} steps into a task: what they learned is not protected before consolidate()"
        )
    heaviest = max(layers, key=lambda name: layers[name]["share"] or 0.0)
    if len(layers) > 1 and layers[heaviest]["share"] > ONE_LAYER:
        share = 100 * layers[heaviest]["share"]
        told.append(f"{heaviest!r} carries {share:.0f} % of the importance: the other layers are hardly held")
    if whole["free"] < LITTLE_LEFT:
        free = 100 * whole["free"]
        told.append(f"only {free:.1f} % of the weights are free: new tasks find little room; lower ewc_lambda or decay")
    if whole["saturated"] > MUCH_SATURATED:
        top = 100 * whole["saturated"]
        told.append(f"{top:.0f} % of the importance is saturated: it hardly tells weights apart any more")
    if whole["drift"] is not None and whole["drift"] > FAR:
        away = 100 * whole["drift"]
        told.append(f"the weights are {away:.0f} % of the anchors' norm away from them: old tasks are likely lost")
    return told
