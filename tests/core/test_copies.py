"""Copies of a model, its optimizer and RWalk go on alone, exactly as the original would have."""

import copy
import gc
import io
import pickle
from multiprocessing.reduction import ForkingPickler

import pytest
import torch
import torch.multiprocessing  # registers how tensors are sent
from torch import nn

from core.kernels import needs_compiler
from reference.problems import assert_same_state
from rwalk import RWalk, RWalkConfig

BACKENDS = ["eager", pytest.param("fused", marks=needs_compiler)]


def pickled(things):
    return pickle.loads(pickle.dumps(things))


def saved(things):
    file = io.BytesIO()
    torch.save(things, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def train(model, optimizer, seed):
    random = torch.Generator().manual_seed(seed)
    for _ in range(5):
        optimizer.zero_grad()
        model(torch.randn(4, 30, generator=random)).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("state_dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("copied", [copy.deepcopy, pickled, saved])
def test_a_copy_goes_on_when_the_original_is_gone(copied, backend, state_dtype):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(30, 40), nn.Tanh(), nn.Linear(40, 5))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    rwalk = RWalk(model, optimizer, RWalkConfig(ewc_lambda=1.0, delta_t=3, backend=backend, state_dtype=state_dtype))
    train(model, optimizer, 0)
    rwalk.consolidate()
    train(model, optimizer, 1)  # in the middle of a window
    other, its_optimizer, again = copied((model, optimizer, rwalk))
    assert not again.attached

    train(model, optimizer, 2)
    rwalk.consolidate()
    train(model, optimizer, 3)
    expected, weights = rwalk.state_dict(), copy.deepcopy(model.state_dict())
    del model, optimizer, rwalk
    gc.collect()  # whose memory the copy may be given now

    again.attach()
    train(other, its_optimizer, 2)
    again.consolidate()
    train(other, its_optimizer, 3)
    assert_same_state(again.state_dict(), expected)
    assert all(torch.equal(value, weights[name]) for name, value in other.state_dict().items())
    assert torch.equal(again.importances()["0.weight"], expected["parameters"]["0.weight"]["importance"].float())


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_original_knows_nothing_of_a_copy(backend):
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rwalk = RWalk(model, optimizer, RWalkConfig(ewc_lambda=1.0, delta_t=2, backend=backend))
    for _ in range(3):
        model(torch.ones(1, 3)).sum().backward()
        optimizer.step()
    rwalk.consolidate()
    before = rwalk.state_dict()
    other, its_optimizer, again = copy.deepcopy((model, optimizer, rwalk))
    again.attach()
    for _ in range(3):
        other(torch.ones(1, 3)).sum().backward()
        its_optimizer.step()
    again.consolidate()
    assert_same_state(rwalk.state_dict(), before)


def test_a_copy_needs_no_graph_of_the_gradients():
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rwalk = RWalk(model, optimizer)
    loss = model(torch.ones(1, 3)).square().sum()
    for parameter, gradient in zip(
        model.parameters(), torch.autograd.grad(loss, list(model.parameters()), create_graph=True), strict=True
    ):
        parameter.grad = gradient
    optimizer.step()
    model.zero_grad()
    assert copy.deepcopy(rwalk).steps == 1


def test_a_worker_that_reads_changes_nothing_here():
    """Tensors reach another process as shared memory, so that what is written there is written here."""
    for config in (RWalkConfig(delta_t=4), RWalkConfig(delta_t=1), RWalkConfig.avalanche(delta_t=4)):
        model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        rwalk = RWalk(model, optimizer, config)
        for step in range(15):
            optimizer.zero_grad()
            model(torch.randn(4, 3)).square().mean().backward()
            optimizer.step()
            if step == 8:
                rwalk.consolidate()
        sent = bytes(ForkingPickler.dumps(rwalk))  # in the midst of a window, with a step that is not settled
        before, weights = copy.deepcopy(rwalk.state_dict()), copy.deepcopy(model.state_dict())
        theirs = ForkingPickler.loads(sent)
        theirs.importances()
        theirs.importances("score")
        theirs.penalty()
        theirs.settle()
        theirs.state_dict()
        copy.deepcopy(theirs)
        for name, values in rwalk.state_dict()["parameters"].items():
            for quantity, value in values.items():
                expected = before["parameters"][name][quantity]
                assert torch.equal(value, expected) if isinstance(value, torch.Tensor) else value == expected
        assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
