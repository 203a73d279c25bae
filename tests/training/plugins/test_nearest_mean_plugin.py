"""Evaluation by the nearest mean of exemplars."""

import copy
import math

import pytest
import torch
from torch import nn

from replay.twins import nearest_mean
from rwalk.models import MultiHeadClassifier, MultiTaskModule, MultiTaskNetwork
from rwalk.replay import ClassMeans
from rwalk.streams import Stream
from rwalk.training import NearestMeanPlugin, ReplayPlugin
from training.plugins.test_replay_any_data import Made, row
from training.toys import Recorder, naive, net, sgd, six_classes, toy

TOP = "Top1_Acc_Exp/eval_phase/test_stream/Task000/Exp{:03d}"


def remembering(model, *more, stream=None, layer=None, classifier=None, per_class=2, **options):
    """A strategy that has learned with exemplars, and will be judged by their means."""
    replay = ReplayPlugin(per_class=per_class)
    plugin = NearestMeanPlugin(replay, layer, classifier)
    strategy = naive(model, plugins=[replay, plugin, *more], **{"optimizer": sgd(model, 0.05), **options})
    strategy.train(toy().train_stream if stream is None else stream)
    return strategy, plugin


def predicted(plugin, features, data):
    """What the rule written out makes of a dataset, in a network whose features are a function."""
    samples = plugin.replay.memory.samples
    kept = torch.stack([x for x, *_ in samples])
    with torch.no_grad():
        return nearest_mean(features(kept).tolist(), [int(y) for _, y, _ in samples], features(data.x).tolist())[0]


@pytest.mark.parametrize("layer", [None, "0"])
def test_accuracy_is_that_of_the_nearest_mean(layer):
    strategy, plugin = remembering(net(dropout=0.4), layer=layer)
    twin, tests = copy.deepcopy(strategy.model).eval(), toy().test_stream
    features = twin[:1] if layer else twin[:-1]
    metrics = strategy.eval(tests)
    for place, experience in enumerate(tests):
        right = torch.tensor(predicted(plugin, features, experience.dataset)) == experience.dataset.targets
        assert metrics[TOP.format(place)] == pytest.approx(right.float().mean().item())


def test_training_is_what_it_was():
    weights = []
    for with_means in (True, False):
        strategy, plugin = remembering(net(dropout=0.4), eval_every=1)
        if not with_means:
            strategy.plugins.remove(plugin)
        torch.manual_seed(3)
        strategy.train(toy().train_stream, [toy().test_stream])
        weights.append(strategy.model.state_dict())
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name])


def test_before_anything_is_remembered_the_output_decides():
    strategies = [naive(plugins=[NearestMeanPlugin(ReplayPlugin(per_class=2))]), naive()]
    assert strategies[0].eval(toy().test_stream) == strategies[1].eval(toy().test_stream)
    assert strategies[0].plugins[0].judge is None


def test_means_are_those_of_the_weights_that_are_judged():
    strategy, plugin = remembering(net())
    strategy.eval(toy().test_stream)
    before = plugin.judge.means
    with torch.no_grad():
        strategy.model[0].weight.copy_(torch.randn(8, 4))
    strategy.eval(toy().test_stream)
    assert not torch.equal(plugin.judge.means, before)


def test_classes_of_another_tasks_head_stay_out_of_the_question():
    torch.manual_seed(0)
    model = MultiTaskNetwork(nn.Linear(5, 8).double(), MultiHeadClassifier(8).double())
    stream = six_classes(task_labels=True)
    outputs = Recorder(lambda strategy: (strategy.mb_output.clone(), strategy.experience), "after_eval_iteration")
    strategy, plugin = remembering(model, outputs, stream=stream, classifier="classifier")
    strategy.eval(stream)
    noted = outputs.notes("after_eval_iteration")
    assert len(noted) >= len(stream)
    for output, experience in noted:
        own = list(experience.classes_in_this_experience)
        assert bool((output[:, own].abs() <= 1 + 1e-12).all())
        others = [label for label in range(6) if label not in own]
        assert bool((output[:, others] == torch.finfo(output.dtype).min).all())
        assert output.dtype == torch.float64
    assert plugin.judge.classes.tolist() == list(range(6))


@pytest.mark.parametrize("carried", [True, False])  # by the samples themselves, or told by the experience
def test_each_exemplar_is_seen_under_its_own_task(carried):
    class Told(MultiTaskModule):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(5, 6).double()

        def forward(self, x, task_labels):
            return self.head(self.features(x, task_labels))

        @staticmethod
        def features(x, task_labels):
            return x * (1 + torch.as_tensor(task_labels)).reshape(-1, 1) + torch.as_tensor(task_labels).reshape(-1, 1)

    torch.manual_seed(0)
    stream = six_classes(task_labels=True)
    if not carried:
        pairs = [[(x, int(y)) for x, y, _ in experience.dataset] for experience in stream]
        stream = Stream("pairs", pairs, [0, 1, 2])
    strategy, plugin = remembering(Told(), stream=stream)
    strategy.eval(stream)
    samples = plugin.replay.memory.samples
    x, tasks = torch.stack([x for x, *_ in samples]), torch.tensor([int(task) for *_, task in samples])
    expected = ClassMeans.of(Told.features(x, tasks), torch.tensor([int(y) for _, y, _ in samples]))
    assert set(tasks.tolist()) == {0, 1, 2}
    torch.testing.assert_close(plugin.judge.means, expected.means)


def test_rows_of_a_table_are_judged_too():
    class Rows(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Linear(3, 8), nn.Linear(8, 4)

        def forward(self, ids):
            return self.head(torch.relu(self.body(ids)))

    torch.manual_seed(0)
    stream = Stream("rows", [Made(row), Made(row, start=8)])
    tests = Stream("test", [Made(row)])
    strategy, plugin = remembering(Rows(), stream=stream)
    strategy.eval(tests)
    kept = torch.tensor([sample["ids"] for sample, *_ in plugin.replay.memory.samples])
    expected = ClassMeans.of(
        torch.relu(strategy.model.body(kept)).detach(), torch.tensor([y for _, y, _ in plugin.replay.memory.samples])
    )
    assert plugin.judge.classes.tolist() == [0, 1, 2, 3]
    torch.testing.assert_close(plugin.judge.means, expected.means)


def test_a_class_without_exemplars_is_not_chosen():
    replay = ReplayPlugin(mem_size=2, sampler="reservoir")
    plugin, outputs = NearestMeanPlugin(replay), Recorder(lambda s: s.mb_output.argmax(1), "after_eval_iteration")
    strategy = naive(plugins=[replay, plugin, outputs])
    strategy.train(toy().train_stream)
    strategy.eval(toy().test_stream)
    kept = {int(y) for _, y, _ in replay.memory.samples}
    chosen = {int(label) for labels in outputs.notes("after_eval_iteration") for label in labels}
    assert len(kept) <= 2
    assert chosen <= kept


def test_the_loss_is_a_number():
    strategy, _ = remembering(net())
    metrics = strategy.eval(toy().test_stream)
    assert math.isfinite(metrics["Loss_Stream/eval_phase/test_stream"])


def test_exemplars_without_classes_are_refused():
    def number(index):
        return torch.full((3,), float(index)), torch.tensor([float(index)])

    replay = ReplayPlugin(mem_size=2, sampler="reservoir")
    model = nn.Sequential(nn.Linear(3, 1))
    strategy = naive(
        model, optimizer=sgd(model, 1e-4), criterion=nn.MSELoss(), plugins=[replay, NearestMeanPlugin(replay)]
    )
    strategy.train(Stream("numbers", [Made(number)]))
    with pytest.raises(ValueError, match="exemplar 0 has no class: exemplars that judge need class labels"):
        strategy.eval(Stream("test", [Made(number)]))


def test_a_layer_that_is_not_there_is_refused():
    strategy, _ = remembering(net(), layer="3.body")
    with pytest.raises(ValueError, match=r"no layer '3\.body'"):
        strategy.eval(toy().test_stream)


def test_something_else_than_a_replay_plugin_is_refused():
    with pytest.raises(TypeError, match=r"replay=5: expected the ReplayPlugin"):
        NearestMeanPlugin(5)
