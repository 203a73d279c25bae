"""λ task by task: against what it is defined as, and that neither later tasks nor test data have a part in it."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch

from experiments.small import small
from experiments.test_tune import sealed  # noqa: F401 - a fixture
from rwalk.errors import RWalkError
from rwalk.experiments import METHODS, run
from rwalk.experiments import data as experiments_data
from rwalk.experiments.loading import nested
from rwalk.experiments.plasticity import Decay, decayed, set_strength
from rwalk.experiments.pool import carried_out
from rwalk.experiments.searching import Search, chosen_strength
from rwalk.streams import Benchmark, Stream, TensorData


def held_out(method="rwalk", **settings):
    return small(method, **{"validation": 0.2, "exemplars": 2, "epochs": 5, "lr": 0.01, **settings})


@pytest.fixture(scope="module")
def found():
    return decayed(held_out(), Decay(start=3e5, factor=0.1, tolerance=0.05))


def test_lambda_is_decayed_until_the_task_is_learned_as_well_as_allowed(found):
    before = 3e5
    assert len(found.strengths) == len(found.plasticity) == len(found.trials) == 3
    assert found.trials[0] == ()  # the first task has nothing to hold
    for plasticity, trials, accepted in zip(found.plasticity[1:], found.trials[1:], found.strengths[1:], strict=True):
        assert [strength for strength, _ in trials] == pytest.approx(
            [before * 0.1**step for step in range(len(trials))]
        )
        assert [accuracy >= 0.95 * plasticity for _, accuracy in trials] == [False] * (len(trials) - 1) + [True]
        before = accepted
        assert accepted == trials[-1][0]
    assert sum(map(len, found.trials)) > 2  # something was decayed
    assert found.trainings == 3 + sum(map(len, found.trials))


WITH_STRENGTH = {name: method.strength for name, method in METHODS.items() if method.strength}


@pytest.mark.parametrize("method", WITH_STRENGTH)
def test_a_lambda_that_is_accepted_at_once_gives_the_run_under_it(method):
    spec = held_out(method, epochs=1, **nested({WITH_STRENGTH[method]: 0.5}))
    found = decayed(spec, Decay(start=0.5, tolerance=0.99))
    assert found.strengths == (0.5, 0.5, 0.5)
    assert found.matrix.tolist() == run(spec).matrix.tolist()


def test_a_plugin_of_ones_own_has_its_strength_set_or_is_named():
    own = SimpleNamespace(strength=1.0)
    set_strength(SimpleNamespace(plugins=[object(), own]), "options.strength", 3.0)
    assert own.strength == 3.0
    with pytest.raises(RWalkError, match=r"^SimpleNamespace: none has an attribute 'ewc_lambda'"):
        set_strength(SimpleNamespace(plugins=[own]), "rwalk.ewc_lambda", 3.0)


def test_later_tasks_have_no_part_in_it(found, monkeypatch):
    build = experiments_data.benchmark

    def other_end(*arguments, **options):
        data = build(*arguments, **options)
        *first, last = data.train_stream
        noise = torch.randn(last.dataset.x.shape, generator=torch.Generator().manual_seed(0))
        changed = dataclasses.replace(last, dataset=TensorData(noise, last.dataset.targets, last.dataset.task_labels))
        train = Stream("train", [e.dataset for e in (*first, changed)])
        return Benchmark(data.name, train, data.test_stream, data.n_classes, data.input_shape)

    experiments_data._built.cache_clear()
    monkeypatch.setattr(experiments_data, "benchmark", other_end)
    try:
        other = decayed(held_out(), Decay(start=3e5, factor=0.1, tolerance=0.05))
    finally:
        experiments_data._built.cache_clear()
    assert other.strengths[:2] == found.strengths[:2]
    assert other.trials[:2] == found.trials[:2]
    assert other.plasticity[2] != found.plasticity[2]  # it would have been noticed


def test_test_data_is_never_read(sealed):  # noqa: F811
    assert len(decayed(held_out(epochs=1), Decay(start=1.0, tolerance=0.9)).strengths) == 3


def test_a_search_is_stored_and_used_again(tmp_path):
    spec = held_out(epochs=1, rwalk={"ewc_lambda": 7.0})
    work = {"one": Search.of(spec, Decay(start=1.0, tolerance=0.9), tmp_path)}
    ((_, first),) = carried_out(work, 1)
    ((_, again),) = carried_out(work, 1)
    assert (first.error, first.reused, again.reused) == (None, False, True)
    assert again.more["strengths"] == first.more["strengths"]
    assert again.result.matrix.tolist() == first.result.matrix.tolist()
    same = Search.of(held_out(epochs=1), Decay(start=1.0, tolerance=0.9), tmp_path)  # its own λ is not read
    assert same.folder == work["one"].folder
    assert Search.of(spec, Decay(start=2.0, tolerance=0.9), tmp_path).folder != same.folder


def test_the_chosen_lambda_is_the_median_of_the_last():
    assert chosen_strength(Decay(), [{"strengths": [9.0, strength]} for strength in (1.0, 100.0, 3.14159)]) == 3.14


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (small(), "validation=0: λ is chosen on held-out training data"),
        (held_out("fine-tuning"), "method 'fine-tuning' has no strength to choose"),
        (held_out(only_first=1), "split-digits has one task here"),
        (held_out(benchmark="online-digits", exemplars=0), "online-digits has no tasks"),
    ],
)
def test_what_cannot_be_searched_is_refused(spec, message):
    with pytest.raises(ValueError, match=message):
        decayed(spec, Decay())


@pytest.mark.parametrize("how", [{"start": 0.0}, {"factor": 1.0}, {"tolerance": 1.0}, {"steps": 0}])
def test_a_search_without_sense_is_refused(how):
    with pytest.raises(ValueError, match=next(iter(how))):
        Decay(**how)
