"""State that begins late, within a window or at the very step that scores it, scores what it saw."""

import pytest
import torch
from torch import nn

from core.kernels import needs_compiler
from reference.naive import NaiveRWalk
from reference.problems import assert_close, lists, weights
from rwalk import RWalk, RWalkConfig

BACKENDS = ["eager", pytest.param("fused", marks=needs_compiler)]
CONFIG = RWalkConfig(ewc_lambda=0.5, ewc_alpha=0.25, delta_t=4, damping=1e-3)


@pytest.mark.parametrize("config", [CONFIG, CONFIG.replace(state_dtype="bfloat16"), CONFIG.replace(delta_t=1)])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("first", [0, 1, 3])
def test_a_window_that_begins_without_gradients_measures_from_its_beginning(first, backend, config):
    model = nn.ParameterDict({"p": nn.Parameter(torch.full((3,), 5.0)), "q": nn.Parameter(torch.full((2,), -3.0))})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    rwalk, twin = RWalk(model, optimizer, config.replace(backend=backend)), NaiveRWalk(config)
    for step in range(9):
        if step >= first:
            model["p"].grad = torch.full((3,), 1.0 + step)
        if step >= first + 1:
            model["q"].grad = torch.full((2,), 2.0 - step)
        slopes = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        before = lists(weights(model))
        optimizer.step()
        twin.observe(lists(slopes), before, lists(weights(model)))
    rwalk.consolidate()
    twin.end_task(lists(weights(model)))
    bound = 0.02 if config.state_dtype == "bfloat16" else 1e-5
    assert_close(rwalk.importances("score"), twin.score, bound, "score")
    assert_close(rwalk.importances("fisher"), twin.fisher, bound, "Fisher")


@pytest.mark.parametrize("state_dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_grown_elements_are_scored_by_their_own_fisher_even_in_their_first_step(backend, state_dtype):
    model = nn.ParameterDict({"p": nn.Parameter(torch.zeros(2))})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    rwalk = RWalk(model, optimizer, CONFIG.replace(delta_t=1, backend=backend, state_dtype=state_dtype))
    model["p"].grad = torch.ones(2)
    optimizer.step()
    model["p"].data = torch.cat([model["p"].data, torch.zeros(1)])
    model["p"].grad = torch.tensor([1.0, 1.0, 2.0])
    optimizer.step()
    fisher, moved = 2.0**2, 2.0 * 0.5
    assert rwalk.importances("fisher")["p"][2].item() == fisher
    score = 2.0 * moved / (0.5 * fisher * moved**2 + 1e-3)
    assert rwalk.importances("score")["p"][2].item() == pytest.approx(score, rel=2**-7)
