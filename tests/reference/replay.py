"""The same training with any backend: made-up gradients, and everything that RWalk makes of them."""

from collections.abc import Callable, Sequence
from math import isnan

import torch
from torch import Tensor, nn

from reference.problems import gradients, weights
from reference.strategies import History
from rwalk import RWalk, RWalkConfig

Outcome = dict[str, list[Tensor]]


def record(outcome: Outcome, kind: str, values: dict[str, Tensor]) -> None:
    """Add one flat float64 tensor of all values, in the names' order."""
    flat = [values[name].detach().cpu().double().flatten() for name in sorted(values)]
    outcome.setdefault(kind, []).append(torch.cat(flat) if flat else torch.zeros(0, dtype=torch.float64))


def record_state(outcome: Outcome, model: nn.Module, rwalk: RWalk) -> None:
    """Weights and all that is kept of them."""
    record(outcome, "weights", weights(model))
    state = rwalk.state_dict()["parameters"]
    for quantity in ("fisher", "score", "loss_change", "window_start", "displacement", "importance", "anchor"):
        kept = {n: v[quantity] for n, v in state.items() if quantity in v}
        record(outcome, quantity, kept)


def follow(history: History, config: RWalkConfig) -> Outcome:
    """A random history: what the optimizer was given in every step, and the state after every step."""
    model, outcome = history.model(), Outcome()
    optimizer = torch.optim.SGD(model.parameters(), lr=history.lr)
    rwalk = RWalk(model, optimizer, config)
    optimizer.register_step_pre_hook(lambda *_: record(outcome, "gradient", gradients(model)))
    for task in history.tasks:
        for step in task:
            history.load(model, step)
            optimizer.step()
            record_state(outcome, model, rwalk)
        rwalk.consolidate()
        record_state(outcome, model, rwalk)
    return outcome


def same(tensor: Tensor) -> Tensor:
    return tensor


def train(
    start: Sequence[Tensor],
    config: RWalkConfig,
    *,
    tasks: int = 2,
    steps: int = 7,
    lrs: Sequence[float] = (0.05,),
    momentum: float = 0.5,
    lay_out: Callable[[Tensor], Tensor] = same,
    absent: Callable[[int, int], bool] = lambda step, index: False,
    scale: float | None = None,
    change: Callable[[nn.ParameterDict, int], None] = lambda model, task: None,
) -> Outcome:
    """Random gradients for given parameters.

    Args:
        start: The parameters' values.
        config: Settings.
        tasks: How often to consolidate.
        steps: In each task.
        lrs: Learning rates of the groups, to which parameters go in turn.
        momentum: SGD's.
        lay_out: Gives values and gradients their memory layout.
        absent: Whether the parameter of an index has no gradient in a step.
        scale: A gradient scaler's factor, which is taken away after RWalk has read the gradients.
        change: Called with the model before each task.
    """
    model = nn.ParameterDict({f"p{i:03}": nn.Parameter(lay_out(value.clone())) for i, value in enumerate(start)})
    listed = list(model.parameters())
    groups = [{"params": listed[i :: len(lrs)], "lr": lr} for i, lr in enumerate(lrs)]
    optimizer = torch.optim.SGD(groups, momentum=momentum)
    rwalk, outcome, random = RWalk(model, optimizer, config, attach=False), Outcome(), torch.Generator().manual_seed(7)
    for task in range(tasks):
        change(model, task)
        for step in range(steps):
            for index, p in enumerate(listed):
                drawn = torch.randn(p.shape, generator=random, dtype=torch.float64).mul(scale or 1.0)
                p.grad = None if absent(step, index) else lay_out(drawn.to(p))
            rwalk.before_step(grad_scale=scale)
            record(outcome, "gradient", gradients(model))
            for p in listed:
                p.grad = None if p.grad is None else p.grad.div_(scale or 1.0)
            optimizer.step()
            rwalk.after_step()
        record_state(outcome, model, rwalk)
        rwalk.consolidate()
        record_state(outcome, model, rwalk)
    return outcome


def distance(found: Outcome, expected: Outcome) -> float:
    """How far any quantity is off at any moment, relative to the largest value it has had until then."""
    worst = 0.0
    assert set(found) == set(expected)
    for kind, moments in expected.items():
        largest = 0.0
        for mine, reference in zip(found[kind], moments, strict=True):
            assert mine.shape == reference.shape, kind
            if reference.numel():
                largest = max(largest, reference.abs().max().item())
                off = (mine - reference).abs().max().item()
                assert not isnan(off), kind
                worst = max(worst, off / largest if largest else off)
    return worst
