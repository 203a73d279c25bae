"""Models as torch lets them be: compiled, recurrent, checkpointed activations, tied weights in all of these."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from integrations.recorded import CONFIG, Recorded
from reference.problems import assert_same, assert_same_state, batches, tanh_net, weights
from rwalk import RWalk


def train(model, optimizer, rwalk, tasks=2, forward=None):
    for task in range(tasks):
        for x, y in batches(task, 10, torch.float32):
            optimizer.zero_grad()
            nn.functional.mse_loss((forward or model)(x), y).backward()
            optimizer.step()
        rwalk.consolidate()


def walked(wrap=lambda model: model, attach_to="wrapped"):
    """Weights and state after two tasks of a model that is wrapped before or after RWalk is attached."""
    torch.compiler.reset()
    model = tanh_net(dtype=torch.float32)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    if attach_to == "plain":
        rwalk = RWalk(model, optimizer, CONFIG)
    wrapped = wrap(model)
    if attach_to == "wrapped":
        rwalk = RWalk(wrapped, optimizer, CONFIG)
    train(model, optimizer, rwalk, forward=wrapped)
    return weights(model), rwalk.state_dict()


def in_place(model):
    model.compile(backend="eager")
    return model


@pytest.mark.parametrize("attach_to", ["wrapped", "plain"])
@pytest.mark.parametrize("wrap", [lambda model: torch.compile(model, backend="eager"), in_place, nn.DataParallel])
def test_a_wrapped_model_trains_as_the_bare_one_before_or_after_attaching(wrap, attach_to):
    expected, state = walked()
    found, its_state = walked(wrap, attach_to)
    assert_same(found, expected)
    assert_same_state(its_state, state)


class Recurrent(nn.Module):
    """Scores a sequence of three numbers, one after another; its output layer is its input layer transposed."""

    def __init__(self, kind):
        super().__init__()
        torch.manual_seed(0)
        self.into = nn.Linear(1, 5)
        self.cells = kind(5, 5, batch_first=True)
        self.read = nn.Linear(5, 2)
        self.back = nn.Linear(5, 1, bias=False)
        self.back.weight = nn.Parameter(self.into.weight.detach().T.clone())
        self.tied = self.back  # the same module under two names

    def forward(self, x):
        hidden, _ = self.cells(self.into(x.unsqueeze(-1)))
        return self.read(hidden[:, -1]) + self.tied(hidden[:, 0])


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
def test_recurrent_networks_are_accounted_for_in_train_mode(kind):
    model = Recurrent(kind)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    recorded = Recorded(model, optimizer)
    for task in range(2):
        for x, y in batches(task, 10, torch.float32):
            optimizer.zero_grad()
            nn.functional.mse_loss(model(x), y).backward()
            recorded.step(optimizer.step)
        recorded.end_task()
    names = set(recorded.rwalk.importances())
    assert {"cells.weight_hh_l0", "into.weight", "back.weight"} <= names
    assert not any(name.startswith("tied") for name in names)
    assert model.training


class Checkpointed(nn.Module):
    def __init__(self, reentrant):
        super().__init__()
        torch.manual_seed(0)
        self.reentrant, self.passes = reentrant, 0
        self.body = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, 2))

    def run(self, x):
        self.passes += 1
        return self.body(x)

    def forward(self, x):
        if self.reentrant is None:
            return self.run(x)
        return checkpoint(self.run, x.requires_grad_(), use_reentrant=self.reentrant)


@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing_changes_nothing_and_nothing_is_recomputed_for_rwalk(reentrant):
    outcomes = []
    for kind in (None, reentrant):
        model = Checkpointed(kind)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        rwalk = RWalk(model, optimizer, CONFIG)
        torch.manual_seed(1)
        train(model, optimizer, rwalk)
        outcomes.append((weights(model), rwalk.state_dict(), model.passes))
    (expected, state, passes), (found, its_state, twice) = outcomes
    assert (passes, twice) == (20, 40)
    assert_same(found, expected)
    assert_same_state(its_state, state)
