"""Mixed and low precision: what is written down is what the steps did, in float32."""

import pytest
import torch
from torch import nn

from integrations.recorded import CONFIG, Recorded
from reference.problems import batches, tanh_net

SCALE = 2.0**8


def trained(dtype, parameters, scaled, make_optimizer):
    model = tanh_net(dtype=parameters)
    optimizer = make_optimizer(model.parameters())
    scaler = torch.amp.GradScaler("cpu", init_scale=SCALE, enabled=scaled)
    recorded, seen = Recorded(model, optimizer), set()
    for task in range(3):
        for x, y in batches(task, 11, torch.float32):
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype, enabled=dtype is not None):
                output = model(x.to(parameters) if dtype is None else x)
            seen.add(output.dtype)
            scaler.scale(nn.functional.mse_loss(output.float(), y)).backward()
            recorded.step(lambda: scaler.step(optimizer), SCALE if scaled else 1.0)
            scaler.update()
        if task:
            assert recorded.rwalk.penalty() > 0
        recorded.end_task()
    return recorded, seen


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "fused adam": lambda p: torch.optim.Adam(p, lr=0.01, fused=True),
}


@pytest.mark.parametrize("make_optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize(
    ("dtype", "parameters", "scaled"),
    [
        (torch.bfloat16, torch.float32, False),
        (torch.float16, torch.float32, True),
        (None, torch.bfloat16, False),
        (None, torch.float16, False),
    ],
    ids=["bf16 autocast", "fp16 autocast and GradScaler", "bf16 parameters", "fp16 parameters"],
)
def test_the_accounting_is_that_of_the_steps_taken(dtype, parameters, scaled, make_optimizer):
    recorded, seen = trained(dtype, parameters, scaled, make_optimizer)
    assert seen == {parameters if dtype is None else dtype}
    assert {value.dtype for value in recorded.rwalk.importances().values()} == {torch.float32}
    assert recorded.rwalk.steps == 33


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_penaltys_gradient_is_added_to_a_low_precision_gradient_with_one_rounding(dtype):
    model = nn.Linear(2, 1, bias=False).to(dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    recorded = Recorded(model, optimizer, CONFIG.replace(ewc_lambda=1.0))
    for _ in range(2):
        model.weight.grad = torch.tensor([[1.0, 3.0]], dtype=dtype)
        recorded.step(optimizer.step)
    recorded.end_task()
    with torch.no_grad():
        model.weight += torch.tensor([[0.5, -0.25]], dtype=dtype)
    model.weight.grad = torch.tensor([[0.1, 0.2]], dtype=dtype)
    importance = recorded.rwalk.importances()["weight"]
    anchor = model.weight.detach().float() - torch.tensor([[0.5, -0.25]])
    expected = (model.weight.grad.float() + 2.0 * importance * (model.weight.detach().float() - anchor)).to(dtype)
    optimizer.step()
    assert torch.equal(model.weight.grad, expected)
