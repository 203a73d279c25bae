"""Choosing settings: the grid, the choice, and that test data has no part in it."""

import pytest
import torch

from experiments.small import SMALL, small
from rwalk.experiments import RunResult, run, run_all, summarise
from rwalk.experiments import data as experiments_data
from rwalk.experiments.pool import Outcome
from rwalk.experiments.tune import best, candidates
from rwalk.metrics import AccuracyMatrix
from rwalk.streams import Benchmark, Stream, TensorData

BASE = {**SMALL, "method": "rwalk"}


class Sealed(TensorData):
    """Data whose labels are known and whose samples must not be read."""

    def batch(self, index):
        raise PermissionError("test data was read")

    inputs = batch
    subset = batch


@pytest.fixture
def sealed(monkeypatch):
    """Every benchmark has test data that cannot be read."""

    def sealed_benchmark(*arguments, **options):
        data = build(*arguments, **options)
        test = [Sealed(e.dataset.x, e.dataset.targets, e.dataset.task_labels) for e in data.test_stream]
        return Benchmark(data.name, data.train_stream, Stream("test", test), data.n_classes, data.input_shape)

    build = experiments_data.benchmark
    experiments_data._built.cache_clear()
    monkeypatch.setattr(experiments_data, "benchmark", sealed_benchmark)
    yield
    experiments_data._built.cache_clear()


def test_a_grid_becomes_a_spec_for_each_combination():
    found = candidates(BASE, {"rwalk.ewc_lambda": [1.0, 2.0], "rwalk.delta_t": [5], "lr": [0.1, 0.2]})
    assert list(found) == [
        f"rwalk.ewc_lambda={strength}, rwalk.delta_t=5, lr={lr}" for strength in (1.0, 2.0) for lr in (0.1, 0.2)
    ]
    for label, spec in found.items():
        assert label == f"rwalk.ewc_lambda={spec.rwalk['ewc_lambda']}, rwalk.delta_t=5, lr={spec.lr}"
        assert (spec.rwalk["delta_t"], spec.validation, spec.hidden) == (5, 0.1, (16,))
    (chosen,) = candidates({**BASE, "validation": 0.3, "rwalk": {"delta_t": 7}}, {"rwalk.ewc_lambda": [1.0]}).values()
    assert (chosen.validation, chosen.rwalk["delta_t"]) == (0.3, 7)


@pytest.mark.parametrize(
    ("base", "grid", "message"),
    [
        ({}, {"lr": []}, "lr: no values to choose from"),
        ({}, {"lr": [0.1, 0.1]}, "lr=[0.1, 0.1]: expected different values"),
        ({}, {"hidden": [[8], [8.0]]}, "hidden=[[8], [8.0]]: expected different values; [8.0] is one of the others"),
        ({"validation": 0}, {"lr": [1.0]}, "validation=0: settings are chosen on held-out"),
        ({"validation": None}, {"lr": [1.0]}, "validation=0: settings are chosen on held-out"),
        ({}, {"validation": [0, 0.1]}, "validation=0: validation is no setting to choose"),
        ({}, {"seed": [1, 2]}, "seed=1: seed is no setting to choose"),
        ({"seed": 1}, {"lr": [1.0]}, "seed=1: every combination has every seed"),
        ({}, {"lr": [0.1, -1]}, "lr=-1"),
        ({}, {"learning_rate": [0.1]}, "unknown key 'learning_rate'"),
        ({}, {"rwalk.lambda": [0.1]}, "unknown setting 'lambda'"),
    ],
)
def test_a_grid_that_cannot_be_is_refused_before_any_run(base, grid, message):
    with pytest.raises(ValueError, match=r".") as caught:
        candidates({**BASE, **base}, grid)
    assert str(caught.value).startswith(message)


def test_test_data_is_never_read(sealed):
    specs = candidates(BASE, {"rwalk.ewc_lambda": [0.0, 5.0]})
    outcomes = list(run_all(specs, [0, 1], jobs=1))
    assert [outcome.error for outcome in outcomes] == [None] * 4
    assert best(summarise(outcomes, list(specs))).label in specs
    with pytest.raises(PermissionError, match="test data was read"):  # it would have been noticed
        run(small())


def test_what_is_held_out_is_not_trained_on():
    spec = next(iter(candidates(BASE, {"lr": [0.1]}).values()))
    data = experiments_data.stream_of(spec)
    whole = experiments_data.stream_of(small())
    for kept, held, both in zip(data.train_stream, data.valid_stream, whole.train_stream, strict=True):
        rows = [set(map(tuple, part.dataset.x.tolist())) for part in (kept, held, both)]
        assert not rows[0] & rows[1]
        assert rows[0] | rows[1] == rows[2]
        assert len(held.dataset) == pytest.approx(len(both.dataset) / 10, abs=len(held.classes_in_this_experience))
    assert torch.equal(data.test_stream[0].dataset.x, whole.test_stream[0].dataset.x)


def rows_of(figures):
    """Rows of one seed each: first task 0.9 at first, then these two accuracies."""
    outcomes = []
    for label, (old, new) in figures.items():
        matrix = AccuracyMatrix(2)
        matrix.record(0, [0.9, 0.0])
        matrix.record(1, [old, new])
        outcomes.append(Outcome(label, 0, RunResult(small(), matrix, 1.0)))
    return outcomes


def test_the_best_is_highest_in_accuracy_and_lowest_in_forgetting():
    outcomes = rows_of({"even": (0.7, 0.7), "rigid": (0.8, 0.3), "plastic": (0.1, 1.0)})
    rows = summarise(outcomes, ["even", "rigid", "plastic"])
    chosen = {metric: best(rows, metric).label for metric in ("average_accuracy", "forgetting", "learning_accuracy")}
    assert chosen == {"average_accuracy": "even", "forgetting": "rigid", "learning_accuracy": "plastic"}
    assert best(rows, "backward_transfer").label == "rigid"


def test_a_combination_with_a_failed_run_is_not_chosen():
    outcomes = [*rows_of({"good": (0.9, 0.9), "fair": (0.5, 0.5)}), Outcome("good", 1, error="gone")]
    assert best(summarise(outcomes, ["good", "fair"])).label == "fair"
    with pytest.raises(ValueError, match="no combination finished with every seed: gone"):
        best(summarise([Outcome("good", 1, error="gone")], ["good"]))


@pytest.mark.parametrize("metric", ["accuracy", "intransigence"])
def test_what_nothing_can_be_chosen_by_is_named(metric):
    with pytest.raises(ValueError, match=rf"^metric='{metric}'.*: choose one of average_accuracy, "):
        best(summarise(rows_of({"one": (0.5, 0.5)}), ["one"]), metric)
