"""RWalk on models that grow and on models with several heads, against the twin that knows of single rows only."""

import pytest
import torch
from torch import Tensor, nn

from reference.naive import NaiveRWalk, Values
from rwalk import RWalk, RWalkConfig
from rwalk.models import IncrementalClassifier, MultiHeadClassifier, attach_head
from rwalk.streams import TensorData, class_incremental
from rwalk.training import BasePlugin, ReplayPlugin, RWalkPlugin
from training.toys import blobs, naive, toy

CONFIG = RWalkConfig(ewc_lambda=2.0, ewc_alpha=0.6, delta_t=3)
CLASSES = 6


def rows(tensors: dict[str, Tensor]) -> Values:
    """Every row of every parameter on its own, so that a new row is a new parameter."""
    pairs = ((f"{name}[{i}]", row) for name, tensor in tensors.items() for i, row in enumerate(tensor))
    return {name: row.detach().double().flatten().tolist() for name, row in pairs}


def parameters(strategy) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in strategy.model.named_parameters()}


def gradients(strategy) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in strategy.model.named_parameters() if p.grad is not None}


class Twin(BasePlugin):
    """Lets the naive twin watch, and compares at every step and at the end of every experience."""

    def __init__(self, walk: RWalkPlugin) -> None:
        self.walk, self.twin = walk, NaiveRWalk(CONFIG)
        self.compared = 0
        self.joined: list[dict[str, Tensor]] = []

    def before_training_exp(self, strategy, **kwargs):
        self.joined.append(parameters(strategy))

    def before_update(self, strategy, **kwargs):
        self.before, self.plain = rows(parameters(strategy)), rows(gradients(strategy))

    def after_update(self, strategy, **kwargs):
        penalised = self.twin.penalised(self.plain, self.before)
        self.same(rows(gradients(strategy)), penalised)
        self.twin.observe(self.plain, self.before, rows(parameters(strategy)))

    def after_training_exp(self, strategy, **kwargs):
        theta = rows(parameters(strategy))
        self.twin.end_task(theta)
        walk = self.walk.rwalk
        self.same(rows(walk.importances("fisher")), self.twin.fisher)
        self.same(rows(walk.importances("score")), self.twin.score)
        self.same(rows(walk.importances()), self.twin.importance)
        anchors = {name: entry["anchor"] for name, entry in walk.state_dict()["parameters"].items()}
        self.same(rows(anchors), self.twin.anchor)

    def same(self, found: Values, expected: Values) -> None:
        assert set(found) == set(expected)
        for name, values in found.items():
            assert values == pytest.approx(expected[name], rel=1e-7, abs=1e-12), name
            self.compared += len(values)


def stream(task_labels: bool):
    def doubled(data: TensorData) -> TensorData:
        return TensorData(data.x.double(), data.targets)

    data = doubled(blobs(CLASSES, per_class=9)), doubled(blobs(CLASSES, per_class=3, seed=1))
    return class_incremental("toy", *data, 3, task_labels=task_labels, class_order=[0, 1, 4, 2, 3, 5])


@pytest.mark.parametrize("head", [IncrementalClassifier, MultiHeadClassifier])
@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
@pytest.mark.parametrize("replay", [False, True], ids=["alone", "with replay"])
def test_three_experiences_equal_the_reference_row_by_row(head, optimizer, replay):
    torch.manual_seed(0)
    model = attach_head(nn.Sequential(nn.Linear(4, 5), nn.Tanh()), head(5)).double()
    walk = RWalkPlugin.from_config(CONFIG)
    watching = Twin(walk)
    plugins = [walk, watching, *([ReplayPlugin(per_class=2)] if replay else [])]
    benchmark = stream(task_labels=head is MultiHeadClassifier)
    naive(model, optimizer=optimizer(model.parameters(), lr=0.02), plugins=plugins, train_epochs=2).train(
        benchmark.train_stream
    )
    assert walk.rwalk.tasks == 3
    assert watching.compared > 1000
    grown = [name for name in watching.joined[2] if name not in watching.joined[0]]
    assert bool(grown) == (head is MultiHeadClassifier)


def test_new_rows_are_anchored_where_they_begin_and_old_ones_where_their_task_ended():
    torch.manual_seed(0)
    model = attach_head(nn.Linear(4, 5), IncrementalClassifier(5))
    walk, seen = RWalkPlugin(ewc_lambda=5.0), []

    class Look(BasePlugin):
        def before_training_exp(self, strategy, **kwargs):
            self.begins, self.first = parameters(strategy), True

        def after_training_iteration(self, strategy, **kwargs):
            if walk.rwalk.tasks and self.first:
                entry = walk.rwalk.state_dict()["parameters"]["classifier.classifier.weight"]
                old = 2 * walk.rwalk.tasks
                seen.append(old)
                assert torch.equal(entry["anchor"], self.begins["classifier.classifier.weight"])
                assert entry["importance"].shape == (old + 2, 5)
                assert entry["importance"][:old].any()
                assert not entry["importance"][old:].any()
            self.first = False

    naive(model, plugins=[walk, Look()]).train(toy(experiences=2).train_stream)
    assert seen == [2]
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_heads_that_are_not_trained_are_left_alone_to_the_bit():
    torch.manual_seed(0)
    model = attach_head(nn.Linear(4, 5), MultiHeadClassifier(5))
    walk = RWalkPlugin(ewc_lambda=5.0)
    strategy = naive(model, plugins=[walk], train_epochs=2)
    train = class_incremental("toy", blobs(), blobs(), 2, task_labels=True).train_stream
    strategy.train(train[0])
    name = "classifier.classifiers.0.weight"
    before = model.get_parameter(name).detach().clone()
    fisher = walk.rwalk.importances("fisher")[name]
    momentum = strategy.optimizer.state[model.get_parameter(name)]["momentum_buffer"].clone()
    strategy.train(train[1])
    assert torch.equal(model.get_parameter(name), before)
    assert torch.equal(walk.rwalk.importances("fisher")[name], fisher)
    assert torch.equal(strategy.optimizer.state[model.get_parameter(name)]["momentum_buffer"], momentum)
    assert fisher.any()


@pytest.mark.parametrize("head", [IncrementalClassifier, MultiHeadClassifier])
def test_a_grown_model_goes_on_from_files(head, tmp_path):
    train = class_incremental("toy", blobs(), blobs(), 4, task_labels=True).train_stream

    def fresh():
        torch.manual_seed(0)
        return attach_head(nn.Linear(4, 5), head(5))

    def strategy_for(model):
        walk = RWalkPlugin(ewc_lambda=5.0)
        return naive(model, optimizer=torch.optim.Adam(model.parameters(), lr=0.01), plugins=[walk]), walk

    model = fresh()
    strategy, walk = strategy_for(model)
    strategy.train(train[:2])
    walk.rwalk.save(tmp_path / "walk.safetensors")
    torch.save([model.state_dict(), strategy.optimizer.state_dict()], tmp_path / "rest.pt")

    resumed = fresh()
    weights, momenta = torch.load(tmp_path / "rest.pt")
    resumed.load_state_dict(weights)
    other, again = strategy_for(resumed)
    other.optimizer.load_state_dict(momenta)
    again.rwalk = RWalk.load(tmp_path / "walk.safetensors", resumed, other.optimizer, attach=False)

    for each in (strategy, other):
        torch.manual_seed(1)
        each.train(train[2:])
    pairs = zip(model.named_parameters(), resumed.named_parameters(), strict=True)
    assert all(name == twin and torch.equal(a, b) for (name, a), (twin, b) in pairs)
