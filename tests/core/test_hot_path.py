"""Steps take no operation a parameter: none at all in fused code, and in eager code as many as there are tiles."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from core.kernels import needs_compiler
from rwalk import RWalk, RWalkConfig
from rwalk.core import eager

CONFIGS = {
    "published": RWalkConfig(ewc_lambda=1.0, delta_t=4),
    "one step": RWalkConfig(ewc_lambda=1.0, delta_t=1),
    "proximal": RWalkConfig(ewc_lambda=1.0, delta_t=4, penalty="proximal"),
    "warm": RWalkConfig(ewc_lambda=1.0, delta_t=4, ewc_alpha=1e-3, alpha_warmup=True),
    "compact": RWalkConfig(ewc_lambda=1.0, delta_t=4, state_dtype="bfloat16"),
}


class Operations(TorchDispatchMode):
    """Counts what reaches torch's kernels."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(str(function))
        return function(*args, **kwargs or {})


def operations(config, sizes, window_ends=False):
    """What steps in the second task come to, those in the middle of a window or the one where it ends."""
    model = nn.ParameterList([nn.Parameter(torch.ones(size)) for size in sizes])
    rwalk = RWalk(model, torch.optim.SGD(model.parameters(), lr=0.1), config, attach=False)
    windows = [], [], []
    for task in range(2):
        for step in range(13):
            for parameter in model:
                parameter.grad = torch.ones_like(parameter)
            with Operations() as mode:
                rwalk.before_step()
                rwalk.after_step()
            if task == 1 and step and (step % 4 == 0) == window_ends:  # it ends when the next gradient comes
                windows[(step - 1) // 4].extend(mode.names)
        rwalk.consolidate()
    assert windows[1] == windows[2]  # nothing is made anew in each window
    return windows[2]


@needs_compiler
@pytest.mark.parametrize("window_ends", [False, True])
@pytest.mark.parametrize("number", [1, 300])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_fused_steps_take_no_operation_of_torch(config, number, window_ends):
    assert operations(config.replace(backend="fused"), [5] * number, window_ends) == []


@pytest.mark.parametrize("window_ends", [False, True])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_eager_operations_do_not_grow_with_the_number_of_parameters(config, window_ends):
    config = config.replace(backend="eager")
    few, many = (operations(config, [600 // n] * n, window_ends) for n in (2, 300))
    computed = [[name for name in names if "view" not in name and "slice" not in name] for names in (few, many)]
    assert computed[0] == computed[1]


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_eager_operations_grow_with_the_number_of_tiles(config, monkeypatch):
    monkeypatch.setattr(eager, "TILE", 100)
    two, three, four = (len(operations(config.replace(backend="eager"), [size])) for size in (200, 300, 400))
    assert four - three == three - two
    assert 0 < three - two <= 3 * (130 if config.state_dtype == "bfloat16" else 50)
