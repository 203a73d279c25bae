"""Several λ side by side: each as if it were alone, judged by what may be looked at, out once it is behind."""

import dataclasses

import pytest
import torch

from experiments.small import small
from experiments.test_tune import sealed  # noqa: F401 - a fixture
from rwalk.experiments import data as experiments_data
from rwalk.experiments import run
from rwalk.experiments.data import stream_of
from rwalk.experiments.pool import carried_out
from rwalk.experiments.racing import Race, behind_by, in_front, kept_of, raced
from rwalk.experiments.searching import Search, chosen_strength
from rwalk.streams import Benchmark, Stream, TensorData

RACE = Race(keep=3, start=1e5, end=1.0, factor=1e-5, tolerance=0.01)  # one that holds everything, one that holds little


def spec_of(method="rwalk", **settings):
    return small(method, **{"validation": 0.2, "exemplars": 2, "epochs": 4, "lr": 0.01, **settings})


@pytest.fixture(scope="module")
def found():
    return raced(spec_of(), RACE)


@pytest.mark.parametrize(("method", "key"), [("rwalk", "rwalk"), ("lwf", "options")])
def test_a_lambda_alone_in_the_race_gives_the_run_under_it(method, key):
    name = {"rwalk": "ewc_lambda", "options": "strength"}[key]
    spec = spec_of(method, epochs=1, **{key: {name: 0.5}})
    race = raced(spec, Race(keep=2, start=0.5, end=0.5))
    assert race.matrix.tolist() == run(spec).matrix.tolist()
    assert race.trainings == 3


def test_each_learns_as_if_it_were_alone_and_is_judged_by_the_mean_over_tasks(found):
    assert found.trials[0] == ()
    for place, (strength, accuracy) in enumerate(found.trials[1]):
        spec = spec_of(rwalk={"ewc_lambda": strength})
        alone = run(spec).matrix.tolist()[1]
        judged = stream_of(spec).valid_stream[0].dataset
        kept = 3 * len(judged.targets.unique())
        old = 2 * accuracy - alone[1]  # of the first task, on what is kept
        assert old * kept == pytest.approx(round(old * kept), abs=1e-6)
        assert strength == RACE.strengths[place]


def test_who_is_too_far_behind_drops_out(found):
    behind = behind_by(found.trials[:2])
    assert max(behind.values()) > RACE.tolerance
    stayed = [strength for strength, _ in found.trials[2]]
    assert stayed == [strength for strength in RACE.strengths if behind[strength] <= RACE.tolerance]
    assert found.trainings == 1 + len(RACE.strengths) + len(stayed)


def test_later_tasks_have_no_part_in_it(monkeypatch):
    one = Race(keep=3, start=1.0, end=1.0)
    found, build = raced(spec_of(epochs=1), one), experiments_data.benchmark

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
        other = raced(spec_of(epochs=1), one)
    finally:
        experiments_data._built.cache_clear()
    assert other.trials[:2] == found.trials[:2]
    assert other.trials[2] != found.trials[2]  # it would have been noticed


def test_test_data_is_never_read(sealed):  # noqa: F811
    assert len(raced(spec_of(epochs=1), RACE).trials) == 3


def test_the_middle_of_those_that_are_as_good_as_the_best_is_named():
    one = {
        "trials": [[], [[100.0, 0.895], [10.0, 0.9], [1.0, 0.896], [0.1, 0.4]], [[100.0, 0.9], [10.0, 0.9], [1.0, 0.9]]]
    }
    assert in_front([one]) == 10.0
    other = {"trials": [[], [[100.0, 0.8], [10.0, 0.9], [1.0, 0.9], [0.1, 0.4]]]}
    assert chosen_strength(RACE, [one, other]) == 3.16


def test_a_race_is_stored_and_used_again(tmp_path):
    work = {"one": Search.of(spec_of(epochs=1), RACE, tmp_path)}
    ((_, first),) = carried_out(work, 1)
    ((_, again),) = carried_out(work, 1)
    assert (first.error, first.reused, again.reused) == (None, False, True)
    assert again.more["trials"] == first.more["trials"]
    assert Search.of(spec_of(epochs=1), dataclasses.replace(RACE, keep=4), tmp_path).folder != first.folder


def test_as_many_are_kept_as_there_are_exemplars():
    assert [kept_of(spec_of()), kept_of(spec_of(exemplars=0))] == [2, 0]
    assert kept_of(spec_of(exemplars=0, exemplars_total=35)) == 3  # of ten classes


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (small(), "validation=0: λ is chosen on held-out training data"),
        (spec_of("fine-tuning"), "method 'fine-tuning' has no strength to choose"),
        (spec_of(benchmark="online-digits", exemplars=0), "online-digits has no tasks"),
        (spec_of(only_first=1), "split-digits has one task here"),
    ],
)
def test_what_cannot_be_raced_is_refused(spec, message):
    with pytest.raises(ValueError, match=message):
        raced(spec, RACE)


@pytest.mark.parametrize(
    "how", [{"keep": 0}, {"start": 0.0}, {"end": 2e5}, {"factor": 1.0}, {"tolerance": 1.0}, {"factor": 0.9999}]
)
def test_a_race_without_sense_is_refused(how):
    with pytest.raises(ValueError, match=next(iter(how))):
        Race(**{"keep": 1, **how})
