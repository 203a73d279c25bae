"""What a regulariser adds to a training step: the step with it less the same step without."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from benchmarks.capymoa import CAPYMOA, capymoa_rounds
from benchmarks.cases import CASES, OPTIMIZERS, Case
from benchmarks.command import Result, progress, run
from benchmarks.models import size
from benchmarks.peers import avalanche_loop, why_not
from benchmarks.subjects import attached, check_finite, past_first_task, plain_loop
from benchmarks.timing import Rounds, Visit, interleave, visit

BACKENDS = ("eager", "auto")
AVALANCHE, NAIVE = "Avalanche RWalk", "Avalanche Naive"
PEERS = {AVALANCHE: "avalanche", CAPYMOA: "capymoa"}
BESIDE_CAPYMOA = ("mlp_270k", "mlp_6m", "resnet_1m", "wide_17m")


def measure(quick: bool) -> Result:
    """Time a training step bare, with rwalk and with the peers, after the first task (the penalty acts)."""
    result = Result({"delta_t": 10})
    reason = why_not("avalanche")
    if reason is not None:
        result.note(reason)
    for case in CASES:
        for name in case.optimizers:
            progress(f"{case.name} {name}")
            if not case.large:
                _measure(result, case, name, BACKENDS, avalanche=reason is None, quick=quick)
                if case.name in BESIDE_CAPYMOA and name == "sgd":
                    _beside_capymoa(result, case, name, quick)
            elif not quick:
                result.note(f"{case.name}: peers keep 10 to 12 copies of a network; not measured above 60 M parameters")
                for backend in BACKENDS:  # one after the other: each keeps 8 copies
                    _measure(result, case, name, [backend], avalanche=False, quick=quick)
                    gc.collect()
    result.note("auto takes fused code wherever that works; its column says what it took")
    result.note("added = step with it - step without, paired within a round; median over rounds, quartiles beside it")
    result.note("ResNets and the transformer: variants take turns after every step, ten times a round")
    result.note(f"{AVALANCHE} is compared with {NAIVE}, all others with the bare loop")
    result.note(f"{CAPYMOA} starts a Java machine: it takes turns with a bare loop and rwalk in a process apart")
    result.note("Avalanche's plugin leaves the model in eval mode, where BatchNorm costs less; that is in its favour")
    return result


def _measure(
    result: Result,
    case: Case,
    name: str,
    backends: Sequence[str],
    *,
    avalanche: bool,
    quick: bool,
) -> None:
    torch.manual_seed(0)
    model, batches = case.build(), case.batches()
    optimizer: Optimizer = OPTIMIZERS[name](model)
    plain = plain_loop(model, optimizer, batches)
    plain(2)
    steps, lead_in = (1, 0) if case.singly else (case.steps, 1)
    turns: dict[str, Visit] = {"bare": visit(plain, steps, lead_in)}
    facts: dict[str, dict[str, Any]] = {"bare": {}}
    for backend in backends:
        rwalk, first = past_first_task(model, optimizer, plain, backend=backend)
        facts[backend] = {"backend": rwalk.backend, "first_step_ms": 1e3 * first}
        turns[backend] = attached(rwalk, turns["bare"], steps)
    if avalanche:
        for variant, regularised in ((NAIVE, False), (AVALANCHE, True)):
            facts[variant] = {}
            loop = avalanche_loop(model, optimizer, batches, regularised=regularised)
            turns[variant] = visit(loop, steps, lead_in)
    modes = {variant: _in_train_mode(model, turn) for variant, turn in turns.items()}
    rounds = interleave(modes, **_time_for(case, quick))
    check_finite(model)
    _write_down(result, case, name, rounds, facts, ours=backends)


def _beside_capymoa(result: Result, case: Case, name: str, quick: bool) -> None:
    rounds = capymoa_rounds(case.name, name, **_time_for(case, quick))
    if isinstance(rounds, str):
        result.note(rounds)
    else:
        _write_down(result, case, name, rounds, {CAPYMOA: {}}, ours=["auto"])


def _time_for(case: Case, quick: bool) -> dict[str, Any]:
    at_least = 1 if quick else case.at_least
    return {
        "budget": case.seconds / (10 if quick else 1),
        "at_least": at_least,
        "warm_up": at_least > 2,
        "turns": case.steps if case.singly else 1,
    }


def _in_train_mode(model: nn.Module, turn: Visit) -> Visit:
    """Avalanche's plugin leaves eval mode behind."""

    def wrapped() -> float:
        model.train()
        return turn()

    return wrapped


def added(variant: str, seconds: Mapping[str, float]) -> float:
    """Seconds that a variant adds to the step it is compared with."""
    return seconds[variant] - seconds[NAIVE if variant == AVALANCHE else "bare"]


def _write_down(
    result: Result,
    case: Case,
    optimizer: str,
    rounds: Rounds,
    facts: Mapping[str, Mapping[str, Any]],
    *,
    ours: Sequence[str],
) -> None:
    """A row for each variant that facts are given of, and a ratio for each of ours to each peer."""
    with torch.device("meta"):
        parameters = size(case.build())
    for variant, known in facts.items():
        row: dict[str, Any] = {"case": case.name, "parameters": parameters, "batch": case.batch_size}
        row |= {"optimizer": optimizer, "variant": variant, "rounds": len(rounds)}
        row["step_ms"] = 1e3 * rounds.summary(lambda seconds, name=variant: seconds[name]).median
        if variant not in ("bare", NAIVE):
            found = rounds.summary(lambda seconds, name=variant: added(name, seconds))
            row |= {"added_ms": 1e3 * found.median, "q1_ms": 1e3 * found.q1, "q3_ms": 1e3 * found.q3}
        result.rows.append({**row, **known})
    for peer, short in PEERS.items():
        for backend in ours:
            if peer in facts:
                ratio = rounds.summary(
                    lambda seconds, ours=backend, theirs=peer: added(ours, seconds) / added(theirs, seconds)
                )
                result.ratios[f"{case.name}.{optimizer}.{backend}_vs_{short}"] = ratio.median


if __name__ == "__main__":
    run("step_overhead", measure)
