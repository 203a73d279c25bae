"""Replay with samplers that look at the model, and of streams without boundaries."""

import copy
from collections import Counter

import pytest
import torch
from torch import nn

from replay.twins import herded, highest_entropy
from rwalk.replay import SAMPLERS, Entropy, MeanOfFeatures
from rwalk.streams import Stream, TensorData
from rwalk.training import Naive, ReplayPlugin
from training.toys import Recorder, naive, net, sgd, toy


def kept(plugin, label, x):
    """Positions in x of a class's exemplars, in order."""
    rows = x.tolist()
    return [rows.index(value.tolist()) for value, y, _ in plugin.memory.samples if int(y) == label]


def numbered(labels):
    """Sample i holds the number i."""
    labels = torch.tensor(labels)
    x = torch.zeros(len(labels), 4)
    x[:, 0] = torch.arange(len(labels))
    return TensorData(x, labels)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_can_be_named(sampler):
    plugin = ReplayPlugin(mem_size=6, sampler=sampler)
    recorder = Recorder(lambda strategy: len(strategy.mb_y), "before_forward")
    naive(net(dropout=0.3), plugins=[plugin, recorder]).train(toy().train_stream)
    assert recorder.notes("before_forward") == [4] * 3 + [8] * 3
    assert plugin.memory.sampler == SAMPLERS[sampler]()
    assert len(plugin.memory) == 6


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_features_and_logits_are_those_of_the_experiences_end_in_eval_mode(dropout):
    herding, unsure = (
        ReplayPlugin(per_class=3, sampler=MeanOfFeatures(layer="1")),
        ReplayPlugin(per_class=3, sampler=Entropy()),
    )
    model, benchmark = net(dropout=dropout), toy()
    naive(model, plugins=[herding, unsure]).train(benchmark.train_stream[0])
    data, twin = benchmark.train_stream[0].dataset, copy.deepcopy(model).eval()
    for label in (0, 1):
        x = data.x[data.targets == label]
        assert kept(herding, label, x) == herded(twin[:2](x).tolist(), 3)
        assert kept(unsure, label, x) == highest_entropy(twin(x).tolist(), 3)


def test_the_strategys_own_forward_pass_is_used_and_its_batch_put_back():
    class Heads(nn.Module):
        def __init__(self):
            super().__init__()
            self.heads = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])

        def forward(self, x, tasks):
            return torch.stack([self.heads[int(task)](row) for row, task in zip(x, tasks, strict=True)])

    class MultiHead(Naive):
        def forward(self):
            return self.model(self.mb_x, self.mb_task_id)

    torch.manual_seed(0)
    model, plugin = Heads(), ReplayPlugin(per_class=2, sampler="entropy")
    data = [experience.dataset.with_task_label(index) for index, experience in enumerate(toy().train_stream)]
    batches = Recorder(lambda strategy: strategy.mbatch, "after_training_iteration")
    after = Recorder(lambda strategy: strategy.mbatch, "after_training_exp")
    MultiHead(model=model, optimizer=sgd(model), train_mb_size=4, plugins=[batches, plugin, after]).train(
        Stream("train", data, [0, 1])
    )
    assert plugin.memory.counts == {0: 2, 1: 2, 2: 2, 3: 2}
    assert after.notes("after_training_exp")[0] is batches.notes("after_training_iteration")[2]
    x = data[1].x[data[1].targets == 2]
    assert kept(plugin, 2, x) == highest_entropy(model.heads[1](x).tolist(), 2)


def test_looking_at_the_model_changes_nothing_that_training_goes_on_with():
    """One more sampler, whose exemplars nobody uses, and training is the same bit for bit."""

    class Looks(ReplayPlugin):
        def before_training_exp(self, strategy, **kwargs): ...

    found = []
    for extra in ([], [Looks(per_class=2, sampler="mean-of-features"), Looks(per_class=2, sampler="entropy")]):
        model = net(dropout=0.5)
        torch.manual_seed(1)
        naive(model, plugins=[*extra, ReplayPlugin(per_class=2)]).train(toy().train_stream)
        found.append(model.state_dict())
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)


def test_a_layer_that_is_not_there_is_named_in_one_message():
    plugin = ReplayPlugin(per_class=2, sampler=MeanOfFeatures(layer="features"))
    with pytest.raises(ValueError, match="the model has no layer 'features'; the names most like it: "):
        naive(plugins=[plugin]).train(toy().train_stream)


def test_uniform_replay_is_what_it_was_before_there_were_samplers():
    torch.manual_seed(0)
    benchmark, plugin = toy(), ReplayPlugin(per_class=2)
    strategy = naive(plugins=[plugin])
    strategy.train(benchmark.train_stream[0])
    torch.manual_seed(5)
    plugin.after_training_exp(type("At", (), {"experience": benchmark.train_stream[1], "model": None})())
    data = benchmark.train_stream[1].dataset
    torch.manual_seed(5)
    for label in (2, 3):
        x = data.x[data.targets == label]
        assert kept(plugin, label, x) == torch.randperm(len(x))[:2].tolist()


def online(labels, plugin, size=4, epochs=1, seed=0, note=None):
    """Train over one experience in its own order."""
    recorder = Recorder(note, "before_forward")
    strategy = naive(net(outputs=5), plugins=[plugin, recorder], train_mb_size=size, train_epochs=epochs)
    torch.manual_seed(seed)
    strategy.train(Stream("train", [numbered(labels)])[0], shuffle=False)
    return recorder.notes("before_forward")


def test_online_a_batch_is_joined_by_exemplars_of_earlier_batches_only():
    plugin = ReplayPlugin(mem_size=5, sampler="reservoir", update="iteration", batch_size_mem=3)
    seen = online([0, 1, 2] * 6, plugin, note=lambda strategy: strategy.mb_x[:, 0].tolist())
    assert [len(numbers) for numbers in seen] == [4, 7, 7, 7, 5]
    for index, numbers in enumerate(seen):
        new = numbers[:4] if index < 4 else numbers[:2]
        assert new == [4.0 * index + i for i in range(len(new))]
        assert all(number < 4 * index for number in numbers[len(new) :])
    assert len(plugin.memory) == 5


@pytest.mark.parametrize("epochs", [1, 3])
def test_online_each_sample_is_offered_once_however_many_epochs(epochs):
    plugin = ReplayPlugin(mem_size=100, sampler="reservoir", update="iteration")
    online([0, 1, 2] * 6, plugin, epochs=epochs)
    assert sorted(int(x[0]) for x, *_ in plugin.memory.samples) == list(range(18))


def test_online_every_sample_is_equally_likely_to_be_remembered_at_the_end():
    counts, runs = Counter(), 200
    for seed in range(runs):
        plugin = ReplayPlugin(mem_size=6, sampler="reservoir", update="iteration")
        online([0] * 12 + [1] * 12, plugin, size=5, seed=seed)
        counts.update(int(x[0]) for x, *_ in plugin.memory.samples)
    expected = runs / 4
    spread = sum((counts[i] - expected) ** 2 for i in range(24)) / (expected * 0.75) * 23 / 24
    assert spread < 49.7  # 23 degrees of freedom: 1 in 1000


def test_online_classes_may_be_balanced():
    plugin = ReplayPlugin(per_class=2, sampler="class-balanced-reservoir", update="iteration")
    online([0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 2, 1], plugin)
    assert plugin.memory.counts == {0: 2, 1: 2, 2: 1}


def test_online_a_training_that_stops_early_remembers_what_it_learned():
    class Stops(Recorder):
        def after_training_iteration(self, strategy, **kwargs):
            if strategy.clock.train_exp_iterations == 1:
                strategy.stop_training()

    plugin = ReplayPlugin(mem_size=50, sampler="reservoir", update="iteration")
    naive(net(), plugins=[plugin, Stops()]).train(toy().train_stream[0], shuffle=False)
    assert len(plugin.memory) == 8


@pytest.mark.parametrize("sampler", [name for name, kind in SAMPLERS.items() if not kind.keyed])
def test_what_has_to_see_an_experience_as_a_whole_is_refused_online(sampler):
    with pytest.raises(ValueError, match=f"sampler '{sampler}', which has to see an experience as a whole"):
        ReplayPlugin(mem_size=5, sampler=sampler, update="iteration")


def test_an_unknown_moment_or_sampler_is_refused():
    with pytest.raises(ValueError, match="update='batch': expected 'experience' or 'iteration'"):
        ReplayPlugin(mem_size=5, update="batch")
    with pytest.raises(ValueError, match="unknown sampler 'random'"):
        ReplayPlugin(mem_size=5, sampler="random")
    with pytest.raises(ValueError, match="per_class=5: 'reservoir' chooses among all classes together"):
        ReplayPlugin(per_class=5, sampler="reservoir")
