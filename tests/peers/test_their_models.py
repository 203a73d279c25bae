"""Avalanche's growing and multi-head models as guests in our template: they adapt, and get task labels."""

import pytest
import torch
from avalanche.models import IncrementalClassifier, MTSimpleMLP
from torch import nn
from torch.utils.data import ConcatDataset

from peers.cases import seed_all, toy_benchmark
from rwalk.integrations.avalanche import to_avalanche
from rwalk.streams import class_incremental
from rwalk.streams.in_memory import as_tensor_data
from rwalk.training import Naive, RWalkPlugin

pytestmark = pytest.mark.filterwarnings("ignore")


def tasks():
    """Their streams, with a task label for each experience."""
    ours = toy_benchmark()
    whole = [
        as_tensor_data(ConcatDataset([experience.dataset for experience in stream]))
        for stream in (ours.train_stream, ours.test_stream)
    ]
    return to_avalanche(class_incremental("tasks", *whole, 3, task_labels=True))


MODELS = {
    "growing": lambda: nn.Sequential(nn.Flatten(), nn.Linear(6, 16), nn.ReLU(), IncrementalClassifier(16)),
    "multi-head": lambda: MTSimpleMLP(input_size=6, hidden_size=16),
}


@pytest.mark.parametrize("name", MODELS)
def test_their_dynamic_models_train_in_our_template(name):
    seed_all(0)
    model, plugin, streams = MODELS[name](), RWalkPlugin(ewc_lambda=1.0), tasks()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    strategy = Naive(model=model, optimizer=optimizer, train_mb_size=6, train_epochs=8, plugins=[plugin])
    for experience in streams.train_stream:
        strategy.train(experience)
        strategy.eval(streams.test_stream)  # where their classifiers grow, ours do not
        assert [id(p) for p in optimizer.param_groups[0]["params"]] == [id(p) for p in model.parameters()]
        for parameter, state in optimizer.state.items():
            assert state["exp_avg"].shape == parameter.shape
    assert len(optimizer.state) == len(list(model.parameters()))
    assert plugin.rwalk.tasks == 3
    after_the_last = strategy.evaluator.matrices["test"].tolist()[-1]
    assert after_the_last[2] > 0.8
    if name == "multi-head":
        assert min(after_the_last) > 0.8
