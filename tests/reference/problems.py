"""Small problems for the tests: a model, its tasks, and the way between tensors and the naive twin's lists."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from reference.naive import Values


def tanh_net(seed: int = 0, dtype: torch.dtype = torch.float64) -> nn.Sequential:
    """Two layers, 26 parameters in four tensors."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).to(dtype)


def batches(
    task: int, steps: int, dtype: torch.dtype = torch.float64, size: int = 8
) -> Iterator[tuple[Tensor, Tensor]]:
    """Regression to a target of each task's own."""
    random = torch.Generator().manual_seed(1000 + task)
    target = torch.randn(3, 2, generator=random, dtype=torch.float64)
    for _ in range(steps):
        x = torch.randn(size, 3, generator=random, dtype=torch.float64)
        yield x.to(dtype), (x @ target).sin().to(dtype)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, task: int, steps: int, dtype=torch.float64) -> None:
    """An ordinary training loop that knows nothing of RWalk."""
    for x, y in batches(task, steps, dtype):
        optimizer.zero_grad()
        nn.functional.mse_loss(model(x), y).backward()
        optimizer.step()


def lists(tensors: dict[str, Tensor]) -> Values:
    """Tensors as the twin's lists."""
    return {name: tensor.detach().double().flatten().tolist() for name, tensor in tensors.items()}


def weights(model: nn.Module) -> dict[str, Tensor]:
    """Copies of the parameters, by name."""
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def gradients(model: nn.Module) -> dict[str, Tensor]:
    """Copies of the gradients that there are, by name."""
    return {name: p.grad.detach().clone() for name, p in model.named_parameters() if p.grad is not None}


def gradient_at(model: nn.Module, theta: Values, loss: Callable[[Tensor], Tensor], x: Tensor) -> Values:
    """Gradient of ``loss(model(x))`` with the twin's weights in the model's place."""
    leaves = {
        name: torch.tensor(theta[name], dtype=torch.float64).view(parameter.shape).requires_grad_()
        for name, parameter in model.named_parameters()
    }
    value = loss(torch.func.functional_call(model, leaves, (x,)))
    return lists(dict(zip(leaves, torch.autograd.grad(value, list(leaves.values())), strict=True)))


def assert_close(found: dict[str, Tensor], expected: Values, relative: float, what: str) -> None:
    """Each tensor's distance from the twin's, in norm, is at most ``relative`` of the twin's norm."""
    assert set(found) == set(expected), f"{what}: {sorted(found)} against {sorted(expected)}"
    for name, tensor in found.items():
        reference = torch.tensor(expected[name], dtype=torch.float64)
        distance = (tensor.detach().double().flatten() - reference).norm()
        assert distance <= relative * reference.norm(), f"{what} of {name}: {distance=} of {reference.norm()}"


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Bit for bit the same tensors under the same names."""
    assert set(found) == set(expected)
    for name, tensor in found.items():
        assert torch.equal(tensor, expected[name]), f"{name} differs by {(tensor - expected[name]).abs().max()}"


def assert_same_state(found: dict, expected: dict) -> None:
    """Bit for bit the same ``RWalk.state_dict``."""
    assert {k: v for k, v in found.items() if k != "parameters"} == {
        k: v for k, v in expected.items() if k != "parameters"
    }
    assert set(found["parameters"]) == set(expected["parameters"])
    for name, values in found["parameters"].items():
        other = expected["parameters"][name]
        assert set(values) == set(other)
        for quantity, value in values.items():
            same = torch.equal(value, other[quantity]) if isinstance(value, Tensor) else value == other[quantity]
            assert same, f"{quantity} of {name}"
