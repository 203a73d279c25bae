"""What the plugin reads of data by itself: an experience's samples when it ends, and what the model knows already."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from reference.problems import assert_same
from rwalk import RWalkConfig, RWalkError
from rwalk.core.consolidate import estimate_fisher
from rwalk.models import build_model
from rwalk.streams import Stream, TensorData
from rwalk.training import MASPlugin, Naive, RWalkPlugin
from rwalk.training.rereading import spread
from training.toys import naive, net, toy

CONFIGS = {"samples": RWalkConfig.laplace(), "loader": RWalkConfig.facil()}


class Items(Dataset):
    """Twelve samples of two classes, made one by one."""

    def __init__(self, make, first=0):
        self.make, self.targets = make, torch.arange(12) % 2 + first

    def __len__(self):
        return 12

    def __getitem__(self, index):
        return self.make(index)


def pair(index):
    """As many numbers as the sample likes, 2 to 4, and its class."""
    return torch.full((2 + index % 3,), float(index)), index % 2


def totals(samples):
    """Sequences of several lengths as three numbers each: their sums."""
    return torch.stack([x.sum().expand(3) for x, _ in samples]), torch.tensor([y for _, y in samples])


def learn(plugin, data, model=None, *, options=None, **settings):
    """A strategy that has learned one experience."""
    torch.manual_seed(0)
    model = nn.Linear(3, 2) if model is None else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    strategy = Naive(model=model, optimizer=optimizer, train_mb_size=4, plugins=[plugin], **settings)
    strategy.train(Stream("train", [data])[0], **(options or {}))
    return strategy


@pytest.mark.parametrize("source", CONFIGS)
def test_the_fisher_at_the_end_is_that_of_the_experiences_own_task(source):
    torch.manual_seed(0)
    model = build_model("mlp", (3,), 4, heads="multi", hidden=(5,))
    plugin = RWalkPlugin.from_config(CONFIGS[source])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    strategy = Naive(model=model, optimizer=optimizer, train_mb_size=4, plugins=[plugin])
    data = [Items(lambda i, first=first: (torch.randn(3), i % 2 + first), first) for first in (0, 2)]
    experiences = Stream("train", data, task_labels=[0, 1])
    strategy.train(experiences[0])
    before = plugin.rwalk.importances("fisher")
    strategy.train(experiences[1])
    fisher = plugin.rwalk.importances("fisher")
    heads = {task: f"classifier.classifiers.{task}.weight" for task in (0, 1)}
    assert float(fisher[heads[1]].max()) > 0
    other = fisher[heads[0]]
    # What was put in place of the old Fisher, or merged into it with its weight: nothing of the other task's head.
    rest = 0.0 if source == "samples" else 1 - plugin.ewc_alpha
    torch.testing.assert_close(other, rest * before[heads[0]])


@pytest.mark.parametrize("given_to", ["strategy", "train"])
@pytest.mark.parametrize("source", CONFIGS)
def test_the_fisher_at_the_end_is_of_batches_as_they_were_trained_on(source, given_to):
    given = {"collate_fn": totals}
    settings, options = (given, {}) if given_to == "strategy" else ({}, given)
    plugin = RWalkPlugin.from_config(CONFIGS[source])
    learn(plugin, Items(pair), options={"shuffle": False, **options}, **settings)
    x, y = totals([pair(index) for index in range(12)])
    expected = RWalkPlugin.from_config(CONFIGS[source])
    learn(expected, TensorData(x, y), options={"shuffle": False})
    assert_same(plugin.rwalk.importances("fisher"), expected.rwalk.importances("fisher"))
    assert float(plugin.rwalk.importances("fisher")["weight"].max()) > 0


class Language(nn.Module):
    """Scores of 7 words at each of 5 positions, as a mapping, classes last; it computes its own loss."""

    def __init__(self):
        super().__init__()
        self.words, self.out = nn.Embedding(7, 4), nn.Linear(4, 7)

    def forward(self, input_ids, labels=None):
        logits = self.out(self.words(input_ids))
        loss = None if labels is None else F.cross_entropy(logits.movedim(-1, 1), labels)
        return {"loss": loss, "logits": logits}


def test_models_that_answer_by_a_mapping_have_their_classes_last():
    torch.manual_seed(1)
    rows = [{"input_ids": ids, "labels": ids} for ids in torch.randint(0, 7, (6, 5))]
    torch.manual_seed(0)
    model, plugin = Language(), RWalkPlugin.from_config(RWalkConfig(fisher_source="loader"))
    learn(plugin, rows, model)
    ids = torch.stack([row["input_ids"] for row in rows])
    batches = [(ids[:4],), (ids[4:],)]
    parameters = dict(model.named_parameters())
    expected = estimate_fisher(model, parameters, batches, lambda batch: model(batch[0])["logits"].movedim(-1, 1))
    for name, value in plugin.rwalk.importances("fisher").items():
        torch.testing.assert_close(value, expected[name])


class Named(nn.Module):
    """A linear model of the column ``x``."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x):
        return self.layer(x)


def own(make):
    """Data that says by itself how batches are made of it."""
    data = Items(make)
    data.collate_fn = totals
    return data


@pytest.mark.parametrize(
    ("data", "settings"),
    [
        (Items(pair), {"collate_fn": totals}),
        (Items(pair), {"options": {"collate_fn": totals}}),
        (own(pair), {}),
        (Items(lambda i: {"x": [float(i)] * 3, "label": i % 2}), {}),
    ],
    ids=["strategy", "train", "dataset", "rows"],
)
def test_what_is_protected_first_comes_in_batches_as_for_training(data, settings):
    plugin = RWalkPlugin.from_config(RWalkConfig(), protect=data)
    learn(plugin, data, Named(), **settings)
    assert plugin.rwalk.tasks == 2


def test_samples_that_are_protected_first_may_be_of_any_form():
    x, y = torch.randn(12, 3, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 2
    found = []
    for make in (
        lambda i: (x[i], int(y[i])),
        lambda i: [x[i], int(y[i])],
        lambda i: (x[i],),
        lambda i: x[i],
        lambda i: (x[i], int(y[i]), 0),
    ):
        plugin = RWalkPlugin.from_config(RWalkConfig(), protect=Items(make))
        learn(plugin, TensorData(x, y))
        found.append(plugin.rwalk.importances())
    for one in found[1:]:
        assert_same(one, found[0])


def test_a_training_that_could_not_protect_first_does_not_go_on_without():
    class Fails(Items):
        fails = True

        def __getitem__(self, index):
            if self.fails:
                raise OSError("no such file")
            return super().__getitem__(index)

    data = Fails(lambda i: (torch.full((4,), float(i)), i % 2))
    plugin = RWalkPlugin.from_config(RWalkConfig(), protect=data)
    strategy = naive(plugins=[plugin])
    with pytest.raises(OSError, match="no such file"):
        strategy.train(toy().train_stream[0])
    data.fails = False
    strategy.train(toy().train_stream[0])
    assert plugin.rwalk.tasks == 2


@pytest.fixture
def bfloat16():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    yield
    torch.set_default_dtype(before)


@pytest.mark.usefixtures("bfloat16")
@pytest.mark.parametrize("size", [1000, 1797])
def test_samples_are_spread_evenly_whatever_the_default_dtype(size):
    x = torch.arange(size).float()[:, None].expand(size, 3)
    dataset = spread(TensorData(x, torch.arange(size) % 2), 200)
    places = dataset.x[:, 0]
    assert (len(places.unique()), float(places[0]), float(places[-1])) == (200, 0.0, size - 1.0)
    steps = places.diff()
    assert float(steps.max() - steps.min()) <= 1
    assert spread(TensorData(x, torch.arange(size) % 2), None).x is x


@pytest.mark.usefixtures("bfloat16")
@pytest.mark.parametrize(
    "plugin",
    [
        RWalkPlugin.from_config(RWalkConfig(fisher_source="samples", fisher_samples=200)),
        MASPlugin(samples=200, batch_size=50),
    ],
    ids=["RWalk", "MAS"],
)
def test_some_samples_are_looked_at_whatever_the_default_dtype(plugin):
    learn(plugin, TensorData(torch.randn(1000, 3), torch.arange(1000) % 2))


def broken(state, change):
    """A state of the plugin in which something is wrong."""
    found = copy.deepcopy(state)
    change(found)
    return found


def not_finite(state):
    state["rwalk"]["parameters"]["0.weight"]["fisher"][0, 0] = float("nan")


def without_counters(state):
    del state["rwalk"]["tasks"]


def without_core(state):
    state["walk"] = state.pop("rwalk")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (not_finite, "the state of '0.weight': its fisher is not finite"),
        (without_counters, "not an rwalk state: it has no 'tasks'"),
        (without_core, "not an rwalk state"),
    ],
)
def test_a_broken_state_is_refused_before_there_is_a_core(change, message):
    first = RWalkPlugin()
    naive(plugins=[first]).train(toy().train_stream[0])
    plugin = RWalkPlugin()
    plugin.load_state_dict(first.state_dict())
    with pytest.raises(ValueError, match=message):
        plugin.load_state_dict(broken(first.state_dict(), change))
    assert plugin.state_dict().keys() == {"rwalk"}
    naive(plugins=[plugin]).train(toy().train_stream[1])
    assert plugin.rwalk.tasks == 2


def test_a_state_that_does_not_fit_the_model_is_not_forgotten_by_the_next_training():
    first, plugin = RWalkPlugin(), RWalkPlugin()
    naive(plugins=[first]).train(toy().train_stream[0])
    plugin.load_state_dict(first.state_dict())
    strategy = naive(net(outputs=5), plugins=[plugin])
    for _ in range(2):
        with pytest.raises(ValueError, match="has shape"):
            strategy.train(toy().train_stream[0])
    assert plugin.rwalk is None
    with pytest.raises(RWalkError, match="nothing to report"):
        plugin.report()
