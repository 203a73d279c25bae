"""Whatever is called in torch's inference mode leaves a state that training goes on with."""

import pytest
import torch

from core.kernels import needs_compiler
from reference.problems import assert_same_state, tanh_net, train
from rwalk import RWalk, RWalkConfig

BACKENDS = ["eager", pytest.param("fused", marks=needs_compiler)]
CALLS = {
    "importances": lambda rwalk: rwalk.importances(),
    "anchors": lambda rwalk: rwalk.anchors(),
    "state_dict": lambda rwalk: rwalk.state_dict(),
    "load_state_dict": lambda rwalk: rwalk.load_state_dict(rwalk.state_dict()),
    "report": lambda rwalk: rwalk.report(),
    "penalty": lambda rwalk: rwalk.penalty(),
    "settle": lambda rwalk: rwalk.settle(),
    "end_window": lambda rwalk: rwalk.end_window(),
    "drop_window": lambda rwalk: rwalk.drop_window(),
    "consolidate": lambda rwalk: rwalk.consolidate(),
    "protect": lambda rwalk: rwalk.protect([torch.ones(4, 3, dtype=torch.float64)], likelihood="gaussian"),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("settings", [{}, {"anchor_at": "average", "average_every": 2, "rectify": "task"}])
@pytest.mark.parametrize("backend", BACKENDS)
def test_it_is_as_if_it_had_been_called_outside_of_it(backend, settings, call):
    states = []
    for mode in (False, True):
        model = tanh_net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        rwalk = RWalk(model, optimizer, RWalkConfig(ewc_lambda=0.5, backend=backend, **settings))
        for task in range(2):
            train(model, optimizer, task, 12)
            with torch.inference_mode(mode):
                call(rwalk)
            train(model, optimizer, task + 2, 13)
            rwalk.consolidate()
        states.append(rwalk.state_dict())
    assert_same_state(*states)
