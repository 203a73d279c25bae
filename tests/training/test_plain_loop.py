"""The template is an ordinary training loop: bit for bit, with and without RWalk, on any dataset."""

from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from reference.problems import assert_same, assert_same_state, weights
from rwalk import RWalk, RWalkConfig
from rwalk.streams import Stream, TensorData
from rwalk.training import RWalkPlugin
from training.toys import Recorder, blobs, naive, net, sgd, toy

CONFIG = RWalkConfig(ewc_lambda=5.0, delta_t=2)


def shuffled(data: TensorData, size: int = 4) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """One epoch's batches, as anyone would write them."""
    order = torch.randperm(len(data))
    for start in range(0, len(data), size):
        chosen = order[start : start + size]
        yield data.x[chosen], data.targets[chosen]


def by_hand(model, optimizer, data, epochs, rwalk=None):
    """A plain PyTorch loop."""
    model.train()
    for _ in range(epochs):
        for x, y in shuffled(data):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    if rwalk is not None:
        rwalk.consolidate()


@pytest.mark.parametrize("make", [sgd, lambda model: torch.optim.AdamW(model.parameters(), lr=0.01)])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_it_is_a_plain_loop_bit_for_bit(make, dropout):
    benchmark = toy()
    model, other = net(dropout=dropout), net(dropout=dropout)
    strategy = naive(model, optimizer=make(model), train_epochs=2)
    torch.manual_seed(1)
    for experience in benchmark.train_stream:
        strategy.train(experience)
    optimizer = make(other)
    torch.manual_seed(1)
    for experience in benchmark.train_stream:
        by_hand(other, optimizer, experience.dataset, epochs=2)
    assert_same(model.state_dict(), other.state_dict())


@pytest.mark.parametrize("settings", [{}, {"penalty": "proximal"}, {"unfinished": "drop"}])
def test_rwalk_in_it_is_rwalk_in_a_plain_loop_bit_for_bit(settings):
    benchmark, config = toy(), CONFIG.replace(**settings)
    model, other, plain = net(), net(), net()
    plugin = RWalkPlugin.from_config(config)
    strategy = naive(model, plugins=[plugin], train_epochs=2)
    torch.manual_seed(1)
    strategy.train(benchmark.train_stream)
    optimizer = sgd(other)
    rwalk = RWalk(other, optimizer, config)
    torch.manual_seed(1)
    for experience in benchmark.train_stream:
        by_hand(other, optimizer, experience.dataset, 2, rwalk)
    assert_same(weights(model), weights(other))
    assert_same_state(plugin.rwalk.state_dict(), rwalk.state_dict())
    torch.manual_seed(1)
    naive(plain, train_epochs=2).train(benchmark.train_stream)
    assert not torch.equal(plain[0].weight, model[0].weight)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize(("name", "value"), [("ewc_lambda", 20.0), ("ewc_alpha", 0.5), ("delta_t", 3)])
def test_settings_changed_between_experiences_hold_from_then_on_as_in_a_plain_loop(name, value, whole):
    benchmark = toy()
    model, other = net(), net()
    plugin = RWalkPlugin.from_config(CONFIG)
    strategy = naive(model, plugins=[plugin], train_epochs=2)
    optimizer = sgd(other)
    rwalk = RWalk(other, optimizer, CONFIG)
    for experience in benchmark.train_stream:
        torch.manual_seed(1)
        strategy.train(experience)
        torch.manual_seed(1)
        by_hand(other, optimizer, experience.dataset, 2, rwalk)
        rwalk.config = CONFIG.replace(**{name: value})
        if whole:
            plugin.config = rwalk.config
        else:
            setattr(plugin, name, value)
        assert (getattr(plugin, name), plugin.config) == (value, rwalk.config)
    assert_same(weights(model), weights(other))
    assert_same_state(plugin.rwalk.state_dict(), rwalk.state_dict())


def test_nothing_is_computed_twice():
    model = net()
    forwards, backwards = [], []
    model.register_forward_hook(lambda *_: forwards.append(model.training))
    model[2].register_full_backward_hook(lambda *_: backwards.append(1))
    strategy = naive(model, plugins=[RWalkPlugin.from_config(CONFIG)], train_epochs=2)
    strategy.train(toy().train_stream)
    iterations = 2 * 2 * 3
    assert strategy.clock.train_iterations == iterations
    assert forwards == [True] * iterations
    assert len(backwards) == iterations


class Pictures(Dataset):
    """Any torch dataset: two parts a sample, no tensors inside until asked."""

    def __init__(self, data: TensorData) -> None:
        self.data, self.targets = data, data.targets.tolist()

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        x, y, _ = self.data[index]
        return x.numpy(), int(y)


def test_any_dataset_is_learned_from_and_evaluated_on_like_data_in_memory():
    data, models, results = blobs().with_task_label(3), [], []
    tasks = Recorder(lambda strategy: set(strategy.mb_task_id.tolist()), "before_eval_forward")
    for dataset in (data, Pictures(data)):
        stream = Stream("train", [dataset], [3])
        models.append(net())
        strategy = naive(models[-1], plugins=[RWalkPlugin.from_config(CONFIG), tasks])
        strategy.train(stream, shuffle=False, num_workers=0)
        results.append(strategy.eval(stream))
    assert_same(weights(models[0]), weights(models[1]))
    assert results[0] == results[1]
    assert tasks.notes("before_eval_forward") == [{3}] * 12
