"""Scenarios: what must fail in all processes alike, and what looks as if it should fail and must not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from torch.distributed import checkpoint
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate

from processes.problem import Case, Run, network, settings, wrap
from rwalk import RWalk, RWalkConfig, RWalkError

CASE = Case()


def refusal(action: Callable[[], Any]) -> str:
    """What an action is refused with; empty if it is not."""
    try:
        action()
    except (RWalkError, ValueError) as error:
        return str(error)
    return ""


def not_finite(folder: Path) -> dict[str, Any]:
    """NaN in one element of one process's gradient, in the second task's last step; the weights are put back."""
    found: dict[str, Any] = {}
    for scale in ("absolute", "relative"):
        states = []
        for spoils in (False, True):
            run = Run(Case(settings(damping_scale=scale)), "fsdp")
            run.train(0)
            run.rwalk.consolidate()
            run.train(1, stop=2)
            if spoils:
                weights = [parameter.detach().to_local().clone() for parameter in run.model.parameters()]

                def spoil(optimizer, *_):
                    if distributed.get_rank() == 1:
                        optimizer.param_groups[0]["params"][0].grad.to_local()[0, 0] = float("nan")

                run.rwalk.detach()
                run.optimizer.register_step_pre_hook(spoil)
                run.rwalk.attach()
                run.train(1, start=2, stop=3)
                with torch.no_grad():
                    for parameter, value in zip(run.model.parameters(), weights, strict=True):
                        parameter.detach().to_local().copy_(value)
            run.rwalk.consolidate()
            found[f"{scale}: counts"] = run.rwalk.steps, run.rwalk.skipped
            states.append(run.rwalk.state_dict())
        found[f"{scale}: same"] = all(
            torch.equal(value, states[1]["parameters"][name][kind])
            for name, values in states[0]["parameters"].items()
            for kind, value in values.items()
            if isinstance(value, torch.Tensor)
        )
        found[f"{scale}: steps"] = states[0]["steps"]
    return found


def wrapped_too_late(folder: Path) -> dict[str, str]:
    """The optimizer holds whole parameters, the model shards."""
    found = {}
    for name, layers in {"all": None, "one layer": 2}.items():
        run = Run(CASE)
        fully_shard(run.model if layers is None else run.model[layers])
        found[name] = refusal(lambda run=run: run.train(0, stop=1))
    run = Run(CASE)
    run.train(0)
    run.rwalk.consolidate()
    wrap(run.model, "fsdp")
    found["after a task"] = refusal(lambda: run.train(1, stop=1))
    run = Run(CASE)
    run.train(0, stop=2)
    fully_shard(run.model[2])
    run.train(0, start=2, stop=4)
    found["before its end"] = refusal(run.rwalk.consolidate)
    return found


def another_layout(folder: Path) -> dict[str, str]:
    """State made of whole parameters, and an optimizer of shards."""
    run = Run(CASE)
    run.train(0)
    run.rwalk.consolidate()
    run.rwalk.detach()
    wrap(run.model, "fsdp")
    optimizer = torch.optim.SGD(run.model.parameters(), lr=0.1)
    run.rwalk.attach(optimizer)
    run.optimizer = optimizer
    return {"step": refusal(lambda: run.train(1, stop=1)), "consolidate": refusal(run.rwalk.penalty)}


def other_gradients(folder: Path) -> str:
    """A gradient that is whole in every process, of a parameter in shards."""
    model = wrap(network(CASE.sizes, CASE.dtype), "fsdp")
    rwalk = RWalk(model, torch.optim.SGD(model.parameters(), lr=0.1), attach=False)
    weight = model[0].weight
    weight.grad = DTensor.from_local(torch.ones(weight.shape, dtype=weight.dtype), weight.device_mesh, [Replicate()])
    return refusal(rwalk.before_step)


def from_a_loader(folder: Path) -> str:
    return refusal(lambda: Run(Case(RWalkConfig.facil()), "fsdp"))


def after_evaluations(folder: Path) -> dict[str, torch.Tensor]:
    """A forward pass alone leaves gathered parameters in the model: before RWalk is made, and before a task ends."""
    run = Run(CASE, "fsdp", protected=False, reshard_after_forward=False)

    def evaluate() -> None:
        with torch.no_grad():
            run.model(torch.zeros(1, CASE.sizes[0], dtype=CASE.dtype))

    evaluate()
    run.rwalk = RWalk(run.model, run.optimizer, CASE.config)
    for task in range(2):
        run.train(task)
        evaluate()
        run.rwalk.consolidate()
    run.train(2, stop=2)
    evaluate()
    return run.results()


def shards_put_in(folder: Path) -> dict[str, torch.Tensor]:
    """As Accelerate prepares FSDP2: the optimizer is built first, and given the shards in place of its parameters."""
    run = Run(CASE)
    held = {id(parameter): name for name, parameter in run.model.named_parameters()}
    wrap(run.model, "fsdp")
    run.engine = "fsdp"
    shards = dict(run.model.named_parameters())
    for group in run.optimizer.param_groups:
        group["params"] = [shards[held[id(parameter)]] for parameter in group["params"]]
    for task in range(2):
        run.train(task)
        run.rwalk.consolidate()
    run.train(2, stop=2)
    return run.results()


def parameters_let_go(folder: Path) -> Any:
    """Another optimizer without the last layer: its importances are kept, and saved whole."""
    run = Run(CASE, "fsdp")
    run.train(0)
    run.rwalk.consolidate()
    before = run.rwalk.importances()
    run.rwalk.detach()
    run.rwalk.attach(torch.optim.SGD([*run.model[0].parameters(), *run.model[2].parameters()], lr=0.1))
    return {"before": before, "after": run.rwalk.importances(), "saved": run.rwalk.state_dict()}


def read_into_nothing(folder: Path) -> str:
    """torch.distributed.checkpoint fills in what a new RWalk's state holds: counters, and no parameter."""
    run = Run(CASE, "fsdp")
    run.train(0, stop=2)
    checkpoint.save({"rwalk": run.rwalk.state_dict()}, checkpoint_id=folder / "checkpoint")
    fresh = Run(CASE, "fsdp").rwalk
    state = {"rwalk": fresh.state_dict()}
    checkpoint.load(state, checkpoint_id=folder / "checkpoint")
    return refusal(lambda: fresh.load_state_dict(state["rwalk"]))
