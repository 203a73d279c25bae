"""Scenarios: states saved in one layout and gone on with in another, in mid-window."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import distributed
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

from processes.problem import Case, Run, network, settings, whole
from rwalk import RWalk, RWalkConfig

PLAIN = {"options": (("lr", 0.1),)}  # no momentum, which would have to be saved too
WIDER = (6, 10, 5, 4)
CASES = {
    "paper": Case(settings(), **PLAIN),
    "agem": Case(RWalkConfig.agem(ewc_lambda=0.2, ewc_alpha=0.5, delta_t=3, fisher_every=2), **PLAIN),
    "compact": Case(settings(state_dtype="bfloat16"), dtype=torch.float32, **PLAIN),
    "grown": Case(settings(), sizes=WIDER, **PLAIN),
}


def begin(name: str, engine: str) -> Run:
    """A task, and one full window and one step of the next."""
    run = Run(CASES[name], engine)
    run.train(0)
    run.rwalk.consolidate()
    run.train(1, stop=4)
    return run


def go_on(run: Run) -> dict[str, torch.Tensor]:
    run.train(1, start=4)
    run.rwalk.consolidate()
    run.train(2, stop=2)
    return run.results()


def save(run: Run, folder: Path, name: str) -> None:
    """The state by ``save``, and the weights and the state by ``torch.save``."""
    folder.mkdir(exist_ok=True)
    run.rwalk.save(folder / f"{name}.safetensors")
    weights, state = whole(run.model), run.rwalk.state_dict()
    if not distributed.is_initialized() or distributed.get_rank() == 0:
        torch.save({"weights": weights, "state": state}, folder / f"{name}.pt")


def resume(name: str, engine: str, folder: Path) -> Run:
    run = Run(CASES[name], engine, protected=False)
    weights = torch.load(folder / f"{name}.pt")["weights"]
    set_model_state_dict(run.model, weights, options=StateDictOptions(full_state_dict=True))
    run.rwalk = RWalk.load(folder / f"{name}.safetensors", run.model, run.optimizer)
    return run


def save_alone(folder: Path) -> None:
    """What one process saves. In the last case its model has grown since the last gradient."""
    for name in ("paper", "agem"):
        save(begin(name, "alone"), folder, name)
    run = begin("paper", "alone")
    wider = network(WIDER, run.case.dtype)
    with torch.no_grad():
        for new, old in zip(wider.parameters(), run.model.parameters(), strict=True):
            new[tuple(slice(0, size) for size in old.shape)] = old
    run.rwalk.detach()
    run.rwalk.attach(torch.optim.SGD(wider.parameters(), lr=0.1), wider)
    run.rwalk.penalty()  # makes room for the new elements
    run.model = wider
    save(run, folder, "grown")


def sharded(folder: Path) -> dict[str, Any]:
    """Each process saves and goes on without a break."""
    found = {}
    for name in ("paper", "agem", "compact"):
        run = begin(name, "fsdp")
        save(run, folder.parent / "of-four", name)
        found[name] = go_on(run)
    return found


def of_one(folder: Path) -> dict[str, Any]:
    """What one process saved."""
    return {name: _resumed(name, "fsdp", folder.parent / "of-one") for name in ("paper", "agem", "grown")}


def of_four(folder: Path) -> dict[str, Any]:
    """What four processes saved, in fewer."""
    engines = {"paper": "fsdp", "agem": "ddp"}
    return {name: _resumed(name, engine, folder.parent / "of-four") for name, engine in engines.items()}


def _resumed(name: str, engine: str, folder: Path) -> dict[str, Any]:
    run = resume(name, engine, folder)
    return {"state": run.rwalk.state_dict(), "results": go_on(run)}
