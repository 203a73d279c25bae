"""Our plugin as a guest: Avalanche's strategies, modules, replay and evaluation around it."""

import inspect

import pytest
import torch
from avalanche.benchmarks import benchmark_from_datasets
from avalanche.benchmarks.utils import TransformGroups, as_classification_dataset
from avalanche.evaluation.metrics import accuracy_metrics, forgetting_metrics
from avalanche.models import IncrementalClassifier, MTSimpleMLP
from avalanche.training.plugins import EvaluationPlugin, LwFPlugin, ReplayPlugin
from avalanche.training.plugins import RWalkPlugin as TheirRWalk
from avalanche.training.templates import SupervisedTemplate
from torch import nn

from peers.cases import mlp, seed_all, their_strategy, toy_benchmark
from rwalk import RWalkConfig, RWalkError
from rwalk.integrations.avalanche import stream_from_avalanche, to_avalanche
from rwalk.streams import TensorData, class_incremental
from rwalk.training import Naive, RWalkPlugin

pytestmark = pytest.mark.filterwarnings("ignore")


def fit(strategy, stream):
    for experience in stream:
        strategy.train(experience)


def test_supervised_template_with_their_replay_and_evaluation():
    seed_all(0)
    model, plugin = mlp(), RWalkPlugin(ewc_lambda=1.0)
    evaluator = EvaluationPlugin(accuracy_metrics(stream=True), forgetting_metrics(stream=True))
    strategy = SupervisedTemplate(
        model=model,
        optimizer=torch.optim.Adam(model.parameters(), lr=0.01),
        criterion=nn.CrossEntropyLoss(),
        train_mb_size=6,
        train_epochs=8,
        plugins=[plugin, ReplayPlugin(mem_size=18)],
        evaluator=evaluator,
    )
    benchmark = to_avalanche(toy_benchmark())
    for experience in benchmark.train_stream:
        strategy.train(experience)
        metrics = strategy.eval(benchmark.test_stream)
    assert metrics["Top1_Acc_Stream/eval_phase/test_stream/Task000"] > 0.8
    assert plugin.rwalk.tasks == 3


def test_multi_head_keeps_the_importances_of_heads_that_are_not_trained():
    seed_all(0)
    data = toy_benchmark()
    labelled = class_incremental(
        "tasks", *(_whole(stream) for stream in (data.train_stream, data.test_stream)), 3, task_labels=True
    )
    model, plugin = MTSimpleMLP(input_size=6, hidden_size=16), RWalkPlugin(ewc_lambda=1.0)
    strategy = their_strategy(model, torch.optim.SGD(model.parameters(), lr=0.05), [plugin])
    kept = []
    for experience in to_avalanche(labelled).train_stream:
        strategy.train(experience)
        kept.append(plugin.rwalk.importances("fisher"))
    heads = [name for name in kept[0] if name.startswith("classifier.classifiers.0") and name.endswith("weight")]
    assert heads
    assert len(kept[2]) > len(kept[0])
    for name in heads:
        assert torch.equal(kept[2][name], kept[0][name])


def test_a_growing_classifier_keeps_what_it_had():
    seed_all(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 16), nn.ReLU(), IncrementalClassifier(16, initial_out_features=2))
    plugin = RWalkPlugin(ewc_lambda=1.0)
    strategy = their_strategy(model, torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9), [plugin])
    shapes = []
    for experience in to_avalanche(toy_benchmark()).train_stream:
        strategy.train(experience)
        shapes.append(tuple(plugin.rwalk.importances()["3.classifier.weight"].shape))
    assert shapes == [(2, 16), (4, 16), (6, 16)]


def test_their_streams_train_in_our_template_as_they_are_and_from_memory():
    theirs = to_avalanche(toy_benchmark())
    finals = []
    for stream in (theirs.train_stream, stream_from_avalanche(theirs.train_stream)):
        seed_all(0)
        model, plugin = mlp(), RWalkPlugin(ewc_lambda=1.0)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        strategy = Naive(model=model, optimizer=optimizer, train_mb_size=6, plugins=[plugin])
        for experience in stream:
            strategy.train(experience, shuffle=False)
        assert plugin.rwalk.tasks == 3
        finals.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(*finals)


def test_their_streams_evaluate_in_our_template():
    theirs = to_avalanche(toy_benchmark())
    model = mlp()
    strategy = Naive(
        model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.05), train_mb_size=6, train_epochs=8
    )
    for experience in theirs.train_stream:
        strategy.train(experience)
        strategy.eval(theirs.test_stream)
    assert strategy.evaluator.matrices["test"].learned == 3


def test_two_plugins_in_one_strategy_are_refused():
    model = mlp()
    strategy = their_strategy(model, torch.optim.SGD(model.parameters(), lr=0.05), [RWalkPlugin(), RWalkPlugin()])
    with pytest.raises(RWalkError, match="two RWalkPlugins, which would penalise twice"):
        fit(strategy, to_avalanche(toy_benchmark()).train_stream)


def test_a_model_replaced_by_a_different_one_is_refused_and_by_an_equal_one_followed():
    stream = list(to_avalanche(toy_benchmark()).train_stream)
    model, plugin = mlp(), RWalkPlugin()
    strategy = their_strategy(model, torch.optim.SGD(model.parameters(), lr=0.05), [plugin])
    strategy.train(stream[0])
    twin = mlp()
    strategy.model, strategy.optimizer = twin, torch.optim.SGD(twin.parameters(), lr=0.05)
    strategy.optimized_param_id = None
    strategy.train(stream[1])
    assert plugin.rwalk.model is twin
    other = nn.Sequential(nn.Flatten(), nn.Linear(6, 6))
    strategy.model, strategy.optimizer = other, torch.optim.SGD(other.parameters(), lr=0.05)
    strategy.optimized_param_id = None
    with pytest.raises(RWalkError, match=r"no longer has '3\.(weight|bias)', whose importances are kept"):
        strategy.train(stream[2])


def test_a_strategy_of_another_protocol_is_refused():
    model = mlp()
    strategy = their_strategy(model, torch.optim.SGD(model.parameters(), lr=0.05), [RWalkPlugin()])

    class OldProtocol:
        """Knows only a few hooks."""

        def before_training(self): ...

    strategy.PLUGIN_CLASS = OldProtocol
    with pytest.raises(RWalkError, match="follows another protocol: it has no 'after_training'"):
        fit(strategy, to_avalanche(toy_benchmark()).train_stream)


def test_the_signature_is_that_of_theirs():
    assert inspect.signature(RWalkPlugin, eval_str=True) == inspect.signature(TheirRWalk)


def _whole(stream):
    parts = [experience.dataset for experience in stream]
    return TensorData(torch.cat([part.x for part in parts]), torch.cat([part.targets for part in parts]))


def test_streams_without_task_labels_train_in_our_template():
    data = toy_benchmark()
    sets = [as_classification_dataset(Pairs(e.dataset)) for e in data.train_stream]
    model, plugin = mlp(), RWalkPlugin()
    strategy = Naive(
        model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.05), train_mb_size=6, plugins=[plugin]
    )
    for experience in benchmark_from_datasets(train=sets).train_stream:
        assert not hasattr(experience, "task_label")
        strategy.train(experience)
        strategy.eval(experience)
    assert plugin.rwalk.tasks == 3


def test_our_template_trains_and_evaluates_with_the_transforms_meant_for_each():
    pairs = Pairs(toy_benchmark().train_stream[0].dataset)
    groups = TransformGroups({"train": (lambda x: x * 0 + 1, None), "eval": (lambda x: x * 0 + 100, None)})
    dataset = as_classification_dataset(pairs, transform_groups=groups)
    seen = {True: set(), False: set()}

    class Looks:
        def before_forward(self, strategy, **kwargs):
            seen[True].update(strategy.mb_x.unique().tolist())

        def before_eval_forward(self, strategy, **kwargs):
            seen[False].update(strategy.mb_x.unique().tolist())

    model = mlp()
    strategy = Naive(
        model=model, optimizer=torch.optim.SGD(model.parameters(), lr=1e-6), train_mb_size=6, plugins=[Looks()]
    )
    experience = benchmark_from_datasets(train=[dataset]).train_stream[0]
    strategy.train(experience)
    strategy.eval(experience)
    assert seen == {True: {1.0}, False: {100.0}}


def test_lwf_and_ours_share_a_strategy_over_one_of_our_benchmarks():
    model, plugin = mlp(), RWalkPlugin()
    plugins = [plugin, LwFPlugin(alpha=1.0, temperature=2.0)]
    strategy = their_strategy(model, torch.optim.SGD(model.parameters(), lr=0.05), plugins)
    fit(strategy, to_avalanche(toy_benchmark()).train_stream)
    assert (plugin.rwalk.tasks, plugin.rwalk.steps) == (3, strategy.clock.train_iterations)


def test_facils_pass_over_the_data_knows_about_heads_and_leaves_replayed_samples_out():
    seed_all(0)
    data = toy_benchmark()
    labelled = class_incremental(
        "tasks", *(_whole(stream) for stream in (data.train_stream, data.test_stream)), 3, task_labels=True
    )
    passed = []

    class Counts(RWalkPlugin):
        def after_training_exp(self, strategy, **kwargs):
            forward = strategy.forward

            def counted():
                passed.append(len(strategy.mbatch[0]))
                return forward()

            strategy.forward = counted
            super().after_training_exp(strategy, **kwargs)
            strategy.forward = forward

    plugin = Counts.from_config(RWalkConfig.facil(exclude=("classifier.*",)))
    model = MTSimpleMLP(input_size=6, hidden_size=16)
    strategy = their_strategy(
        model, torch.optim.SGD(model.parameters(), lr=0.05), [plugin, ReplayPlugin(mem_size=12)], train_epochs=1
    )
    fit(strategy, to_avalanche(labelled).train_stream)
    assert sum(passed) == 3 * 24
    assert set(plugin.rwalk.importances()) == {"features.0.weight", "features.0.bias"}


class Pairs(torch.utils.data.Dataset):
    """Samples `(x, y)` with their targets beside them."""

    def __init__(self, data):
        self.data, self.targets = data, data.targets.tolist()

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        return self.data.x[index], self.targets[index]
