"""Which samples each sampler keeps: those that its formula says, for the model at hand."""

import copy
import logging
from collections import Counter

import pytest
import torch
from torch import nn

from replay.models import points, trained_looking
from replay.twins import chi_square, draw_probabilities, herded, highest_entropy, plane_weights
from rwalk.replay import (
    SAMPLERS,
    Candidates,
    ClassBalancedReservoir,
    Entropy,
    ExemplarMemory,
    MeanOfFeatures,
    PlaneDistance,
    Probe,
    Sampler,
)
from rwalk.replay.samplers import as_sampler


def of_class(data, label):
    x, y = data.tensors
    return x[y == label]


def kept(memory, label, x):
    """Positions in x of a class's exemplars, in order."""
    rows = [row.tolist() for row in x]
    return [rows.index(value.tolist()) for value, y, _ in memory.samples if int(y) == label]


@pytest.mark.parametrize("layer", [None, "body.0"])
def test_mean_of_features_keeps_what_the_twin_finds(layer):
    model, (data, labels) = trained_looking(), points(30)
    memory = ExemplarMemory(per_class=5, sampler=MeanOfFeatures(layer=layer, classifier="classify"))
    memory.update(data, labels, model=model)
    twin = copy.deepcopy(model).eval()
    for label in range(3):
        x = of_class(data, label)
        features = (twin.body[0] if layer else twin.body)(x)
        assert kept(memory, label, x) == herded(features.tolist(), 5)


def test_entropy_keeps_what_the_twin_finds():
    model, (data, labels) = trained_looking(), points(30)
    memory = ExemplarMemory(per_class=5, sampler="entropy")
    memory.update(data, labels, model=model)
    twin = copy.deepcopy(model).eval()
    for label in range(3):
        x = of_class(data, label)
        assert kept(memory, label, x) == highest_entropy(twin(x).tolist(), 5)


def test_plane_distance_draws_with_the_twins_probabilities():
    model, (data, _) = trained_looking(), points(12)
    twin, label, draws = copy.deepcopy(model).eval(), 1, 1000
    x = of_class(data, label)
    weights = plane_weights(twin.body(x).tolist(), twin.classify.weight[label].tolist())
    torch.manual_seed(0)
    sampler, counts = PlaneDistance(classifier="classify"), Counter()
    candidates = Candidates(len(x), [[(row, label) for row in x]], label, probe=Probe(model))
    for _ in range(draws):
        counts[tuple(sampler.choose(candidates, 1).tolist())] += 1
    probabilities = draw_probabilities(weights, 1)
    assert chi_square(counts, probabilities, draws) < 16.3  # 3 degrees of freedom: 1 in 1000
    assert chi_square(counts, dict.fromkeys(probabilities, 0.25), draws) > 16.3


def test_a_class_that_comes_again_is_ranked_with_what_was_kept_under_the_model_of_now():
    (data, labels), (more, again) = points(20, classes=1), points(6, classes=1, seed=1)
    memory, later = ExemplarMemory(per_class=4, sampler="entropy"), trained_looking(seed=1)
    memory.update(data, labels, model=trained_looking())
    pool = torch.cat([torch.stack([x for x, *_ in memory.samples]), more.tensors[0]])
    memory.update(more, again, model=later)
    expected = highest_entropy(copy.deepcopy(later).eval()(pool).tolist(), 4)
    assert kept(memory, 0, pool) == expected
    assert min(expected) < 4 <= max(expected)  # of old and new ones


def test_names_stand_for_samplers_with_their_usual_settings():
    for name, kind in SAMPLERS.items():
        assert as_sampler(name) == kind()
        assert type(as_sampler(name)) is kind
        assert kind.name == name
    own = Entropy(drawn=True)
    assert as_sampler(own) is own
    assert ExemplarMemory(per_class=1).sampler == SAMPLERS["uniform"]()


@pytest.mark.parametrize(
    ("sampler", "error", "message"),
    [
        ("plane distance", ValueError, r"unknown sampler 'plane distance' \(did you mean plane-distance\?\)"),
        (
            "herding",
            ValueError,
            "unknown sampler 'herding': choose one of uniform, reservoir, class-bal",
        ),
        (Entropy, TypeError, r"expected a name \(uniform, .*\) or a Sampler object"),
        (None, TypeError, "sampler=None: expected a name"),
    ],
)
def test_what_is_no_sampler_is_refused(sampler, error, message):
    with pytest.raises(error, match=message):
        ExemplarMemory(per_class=1, sampler=sampler)


class Choosing(Sampler):
    name = "choosing"

    def __init__(self, *positions):
        self.positions = positions

    def choose(self, candidates, budget):
        return torch.tensor(self.positions)


def test_a_sampler_of_ones_own_decides():
    memory = ExemplarMemory(per_class=2, sampler=Choosing(3, 1))
    data, labels = points(6, classes=1)
    memory.update(data, labels)
    assert kept(memory, 0, data.tensors[0]) == [3, 1]


@pytest.mark.parametrize("positions", [(0, 0), (0, 1, 2), (6,), (-1,)])
def test_a_choice_that_is_none_is_refused(positions):
    memory = ExemplarMemory(per_class=2, sampler=Choosing(*positions))
    with pytest.raises(ValueError, match=r"'choosing' chose .*: expected at most 2 distinct positions from 0 to 5"):
        memory.update(*points(6, classes=1))


def test_a_class_that_the_classifier_does_not_know_leaves_the_memory_as_it_was():
    memory, model = ExemplarMemory(per_class=2, sampler=PlaneDistance(classifier="classify")), trained_looking()
    (data, labels), (more, unknown) = points(9), points(12, classes=4, seed=1)
    memory.update(data, labels, model=model)
    before = [x.tolist() for x, *_ in memory.samples]
    with pytest.raises(ValueError, match="layer 'classify' has 3 rows, none for class 3"):
        memory.update(more, unknown, model=model)  # classes 0, 1 and 2 are ranked first
    assert [x.tolist() for x, *_ in memory.samples] == before
    assert memory.counts == {0: 2, 1: 2, 2: 2}


def test_candidates_without_what_a_sampler_needs_say_so():
    with pytest.raises(ValueError, match="this sampler looks at the model"):
        Entropy().choose(Candidates(1, []), 1)
    with pytest.raises(ValueError, match="candidates of any class have no class weight"):
        PlaneDistance().choose(Candidates(1, [], probe=Probe(nn.Linear(2, 2))), 1)


def test_a_memory_chosen_by_another_sampler_is_refused():
    state = ExemplarMemory(per_class=2, sampler="entropy").state_dict()
    with pytest.raises(ValueError, match="chosen by 'entropy'; this one has sampler='uniform'"):
        ExemplarMemory(per_class=2).load_state_dict(state)
    with pytest.raises(ValueError, match="chosen by 'uniform'; this one has sampler='class-balanced-reservoir'"):
        ExemplarMemory(per_class=2, sampler=ClassBalancedReservoir()).load_state_dict(
            ExemplarMemory(per_class=2).state_dict()
        )


def test_a_memory_saved_before_there_were_samplers_is_a_uniform_one():
    memory = ExemplarMemory(per_class=2)
    memory.update(*points(6))
    old = {name: value for name, value in memory.state_dict().items() if name in ("per_class", "total", "samples")}
    other = ExemplarMemory(per_class=2)
    other.load_state_dict(old)
    assert other.counts == memory.counts


def test_a_class_smaller_than_its_budget_is_told_of_once(caplog):
    memory = ExemplarMemory(per_class=3)
    with caplog.at_level(logging.WARNING, logger="rwalk"):
        for _ in range(2):
            memory.update(*points(5, classes=2))
            memory.update(*points(1, classes=9))
    assert caplog.messages == ["class 1 has only 2 samples for per_class=3: all of them are kept"]


def test_a_total_budget_asks_for_no_number_of_each_class(caplog):
    with caplog.at_level(logging.WARNING, logger="rwalk"):
        ExemplarMemory(total=100).update(*points(5))
    assert caplog.messages == []
