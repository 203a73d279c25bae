"""What is in a state file, in numbers: for people who have to decide what to do with it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rwalk.core import compact
from rwalk.core.checking import COUNTERS
from rwalk.core.container import Deferred
from rwalk.core.files import opened
from rwalk.core.names import canonical_name, canonical_names
from rwalk.core.plasticity import NOT_KNOWN, held_layers, shares, warnings_of

__all__ = ["compare_states", "summarize_state"]


def summarize_state(path: str | Path, weights: Mapping[str, Tensor] | None = None) -> dict[str, Any]:
    """Counters, config and a line for each parameter. Every byte of the file is verified on the way.

    Args:
        path: A state file.
        weights: The model's parameters by name, to tell how far they are from their anchors. Without them that is told
            of the weights at which the open window began, where the file has them. Names may have what DDP and
            ``torch.compile`` put in front; entries of no parameter in the state are left out.

    Returns:
        ``path``, ``bytes``, ``schema``, ``verified`` (schema 1 had no checksums), ``compact``, ``written`` (seconds
        since 1970; of schema 1 the file's own time), ``age`` (seconds), the counters, ``config``, ``elements``,
        ``layers``: name → share of all importance, ``parameters``: name → ``shape``, ``elements``, ``share``,
        ``norms`` (quantity → Euclidean norm), ``distance`` (from the anchor), ``held``, ``free`` and ``saturated``
        (see ``rwalk.core.plasticity``); ``held_layers`` and ``warnings``, from there too;
        ``with_weights``. Shares are None before the first task's end, distances where they are not known.

    Raises:
        FileNotFoundError: No such file.
        OSError: It cannot be read.
        StateError: Not an rwalk state, or damaged.
        ValueError: ``weights`` lacks a parameter, or has one of another shape than the state or that is not finite.
    """
    path = Path(path)
    given = None if weights is None else _by_name(weights)
    with opened(path) as state:
        found = path.stat()
        written = state.get("written", int(found.st_mtime))
        parameters: dict[str, dict[str, Any]] = {}
        sums: dict[str, float] = {}
        peak = 0.0
        for name, values in state["parameters"].items():
            norms = {}
            for quantity, value in values.items():
                if isinstance(value, Deferred) and quantity != "fresh":
                    tensor = _tensor(values, quantity)
                    norms[quantity] = float(torch.linalg.vector_norm(tensor, dtype=torch.float64))
                    if quantity == "importance":
                        sums[name] = float(tensor.sum(dtype=torch.float64))
                        peak = max(peak, float(tensor.max()) if tensor.numel() else 0.0)
            shape = next(value.shape for value in values.values() if isinstance(value, Deferred))
            parameters[name] = {"shape": list(shape), "elements": shape.numel(), "share": None, "norms": norms}
            there = None if given is None else _own(name, shape, given)
            parameters[name] |= {"distance": _from_anchor(values, there), **NOT_KNOWN}
        total = sum(sums.values())
        for name, part in sums.items():
            parameters[name]["share"] = part / total if total > 0 else None
            if total > 0:
                parameters[name] |= shares(_tensor(state["parameters"][name], "importance"), peak)
        found_out = {
            "path": str(path),
            "bytes": found.st_size,
            "schema": state["schema"],
            "verified": state["schema"] > 1,
            "compact": state.get("compact", False),
            "written": written,
            "age": max(0, int(time.time()) - written),
            **{name: state[name] for name in COUNTERS},
            "config": dict(state["config"]),
            "elements": sum(values["elements"] for values in parameters.values()),
            "layers": _by_layer(parameters),
            "parameters": parameters,
        }
        held = held_layers(parameters)
        told = {"held_layers": held, "warnings": warnings_of(found_out, held)}
        return {**found_out, **told, "with_weights": weights is not None}


def _by_name(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights, and buffers beside them, by their names in a state: without ``module`` in front of all, or of any."""
    inside = {name: value for name, value in weights.items() if name != "n_averaged"}  # AveragedModel's own
    by_themselves = {canonical_name(name): value for name, value in inside.items()}
    return by_themselves | dict(zip(canonical_names(inside), inside.values(), strict=True))


def _own(name: str, shape: torch.Size, weights: Mapping[str, Tensor]) -> Tensor:
    """The weights of a parameter in the state.

    Raises:
        ValueError: They are missing, of another shape, or not finite.
    """
    if name not in weights:
        raise ValueError(f"{name} is not among the {len(weights)} weights given: give its own model's state_dict()")
    there = weights[name].to(torch.float64)
    if there.shape != shape:
        raise ValueError(
            f"{name}: the weights have shape {list(there.shape)}, the state {list(shape)}: give its own model's"
        )
    if not bool(there.isfinite().all()):
        raise ValueError(f"{name}: the weights are not all finite: give weights from before the training diverged")
    return there


def _from_anchor(values: Mapping[str, Any], there: Tensor | None) -> float | None:
    """How far weights are from their anchor; without them, those at which the window began."""
    if "anchor" not in values or (there is None and "window_start" not in values):
        return None
    anchor = _tensor(values, "anchor").to(torch.float64)
    there = _tensor(values, "window_start") if there is None else there
    return float(torch.linalg.vector_norm(there.to(torch.float64) - anchor))


def _by_layer(parameters: Mapping[str, Mapping[str, Any]]) -> dict[str, float | None]:
    """A layer is what holds parameters: all that a name has before its last dot."""
    layers: dict[str, float | None] = {}
    for name, values in parameters.items():
        layer = name.rpartition(".")[0]
        part = values["share"]
        layers[layer] = None if part is None else part + (layers.get(layer) or 0.0)
    return layers


def compare_states(one: str | Path, other: str | Path) -> dict[str, Any]:
    """In what two state files differ.

    Args:
        one: A state file.
        other: Another.

    Returns:
        ``same`` (whether nothing differs but when they were written), ``counters`` and ``config`` (name → the two
        values, where they differ), ``only_in_first``, ``only_in_second`` (names of parameters), and ``parameters``:
        name → quantity → ``distance`` (Euclidean norm of the difference) and ``relative`` (to the first's norm; None
        if that is zero), or the two ``values`` or shapes, where they differ.

    Raises:
        FileNotFoundError: No such file.
        OSError: One cannot be read.
        StateError: One is no rwalk state, or damaged.
    """
    with opened(one) as first, opened(other) as second:
        names = [*COUNTERS, "compact"]
        numbers = _differing({n: first.get(n, False) for n in names}, {n: second.get(n, False) for n in names})
        config = _differing(first["config"], second["config"])
        before, after = first["parameters"], second["parameters"]
        parameters = {}
        for name in before:
            if name in after:
                found = _distances(before[name], after[name])
                if found:
                    parameters[name] = found
        only = [name for name in before if name not in after], [name for name in after if name not in before]
        return {
            "same": not (numbers or config or parameters or any(only)),
            "counters": numbers,
            "config": config,
            "only_in_first": only[0],
            "only_in_second": only[1],
            "parameters": parameters,
        }


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, list[Any]]:
    names = [*one, *(name for name in other if name not in one)]
    return {name: [one.get(name), other.get(name)] for name in names if one.get(name) != other.get(name)}


def _distances(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for quantity in [*one, *(name for name in other if name not in one)]:
        pair = one.get(quantity), other.get(quantity)
        if quantity in compact.SCALARS:
            continue
        if not all(isinstance(value, Deferred) for value in pair):
            if pair[0] != pair[1]:
                found[quantity] = {"values": [_plain(value) for value in pair]}
            continue
        before, after = _tensor(one, quantity), _tensor(other, quantity)
        if before.shape != after.shape:
            found[quantity] = {"values": [list(before.shape), list(after.shape)]}
            continue
        before, after = before.to(torch.float64), after.to(torch.float64)
        distance, norm = float(torch.linalg.vector_norm(before - after)), float(torch.linalg.vector_norm(before))
        if distance > 0:
            found[quantity] = {"distance": distance, "relative": distance / norm if norm > 0 else None}
    return found


def _plain(value: Any) -> Any:
    return f"a tensor of shape {list(value.shape)}" if isinstance(value, Deferred) else value


def _tensor(values: Mapping[str, Any], quantity: str) -> Tensor:
    """A quantity as it counts; of a compact state, decoded."""
    stored: Tensor = values[quantity].make()
    if quantity == "importance" and "importance_high" in values:
        return compact.decoded(stored, values["importance_high"], values["importance_step"], torch.float32)
    if quantity == "anchor" and "anchor_exponent" in values:
        return compact.restored(stored, values["anchor_exponent"], torch.float32)
    return stored
