"""What code that reads and writes by address has to make sure of itself, where torch's operations would."""

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from core.kernels import needs_compiler
from rwalk import RWalk, RWalkConfig, RWalkError

BACKENDS = ["eager", pytest.param("fused", marks=needs_compiler)]
both = pytest.mark.parametrize("backend", BACKENDS)
needs_fused = pytest.mark.parametrize("backend", BACKENDS[1:])


def learned(backend, size=4, dtype=torch.float32, **settings):
    """One parameter with importance 1 or more, at 0, anchored there."""
    model = nn.ParameterDict({"p": nn.Parameter(torch.zeros(size, dtype=dtype))})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    rwalk = RWalk(model, optimizer, RWalkConfig(ewc_lambda=1.0, backend=backend, terms="fisher", **settings))
    model["p"].grad = torch.ones(size, dtype=dtype)
    optimizer.step()
    rwalk.consolidate()
    return model, optimizer, rwalk


@both
def test_a_gradient_of_another_shape_than_its_parameter_is_refused(backend):
    model, optimizer, rwalk = learned(backend)
    model["p"].data = torch.zeros(100_000)
    with pytest.raises(RWalkError, match=r"p is of shape \(100000,\) on cpu, its gradient of shape \(4,\) on cpu"):
        optimizer.step()
    model["p"].grad = torch.ones(100_000)
    optimizer.step()
    assert rwalk.steps == 2


class Wrapper(Tensor):
    """A tensor that holds another one and has no memory of its own."""

    @staticmethod
    def __new__(cls, inner):
        return Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype, requires_grad=inner.requires_grad)

    def __init__(self, inner):
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return cls(function(args[0].inner))  # detach() is all that a parameter needs


@needs_fused
def test_memory_that_is_not_there_is_not_touched(backend):
    model = nn.ParameterDict({"p": nn.Parameter(Wrapper(torch.zeros(4)))})
    model["p"].grad = Wrapper(torch.ones(4))
    config = RWalkConfig(backend=backend, delta_t=1)
    rwalk = RWalk(model, torch.optim.SGD(model.parameters(), lr=0.0), config, attach=False)
    with pytest.raises(RWalkError, match=r"a Wrapper of shape \(4,\) has no memory of its own"):
        rwalk.before_step()


@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
def test_steps_of_fake_tensors_are_followed_in_eager_code():
    with FakeTensorMode():
        model = nn.Linear(8, 2)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        rwalk = RWalk(model, optimizer, RWalkConfig(delta_t=2))
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.randn(4, 8)).sum().backward()
            optimizer.step()
        assert (rwalk.backend, rwalk.steps) == ("eager", 3)


@both
@pytest.mark.parametrize("penalty", ["gradient", "proximal"])
def test_autograd_learns_of_what_is_written(backend, penalty):
    model, _, rwalk = learned(backend, penalty=penalty)
    model["p"].data.fill_(1.0)
    model["p"].grad = torch.ones(4)
    saved = model["p"].grad if penalty == "gradient" else model["p"]
    used = torch.ones(4, requires_grad=True)
    product = (used * saved).sum()  # keeps it for the backward pass
    rwalk.detach()
    rwalk.before_step()
    rwalk.after_step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()


@pytest.mark.skipif(not hasattr(torch.Tensor, "grad_dtype"), reason="this torch's gradients have their tensor's dtype")
@both
@pytest.mark.parametrize("penalty", ["gradient", "proximal"])
def test_gradients_of_higher_precision_than_their_parameters_keep_it(backend, penalty):
    model, _, rwalk = learned(backend, dtype=torch.bfloat16, penalty=penalty)
    model["p"].grad = None
    model["p"].grad_dtype = torch.float32
    gradient = torch.tensor([1.0 + 2**-12, 1.0, 3.0 - 2**-20, 0.0])  # not all bfloat16's
    model["p"].grad = gradient.clone()
    rwalk.detach()
    rwalk.before_step()
    rwalk.after_step()
    assert model["p"].grad.dtype is torch.float32
    assert torch.equal(model["p"].grad, gradient)  # the parameter is where it is anchored
    assert torch.equal(rwalk.importances("fisher")["p"], 0.9 * gradient**2 + (1 - 0.9) * torch.ones(4))
