"""The comparison with Avalanche, as far as it goes without Avalanche."""

import doctest
import importlib
import sys

import pytest
import torch
from benchmarks.beside_avalanche import command, study
from benchmarks.beside_avalanche.learning import accuracies, beginning, by_rwalk, by_rwalk_in_passes
from benchmarks.beside_avalanche.page import main as print_section
from benchmarks.beside_avalanche.passes import PassesLoader, ReplayInPasses
from benchmarks.beside_avalanche.protocols import AVALANCHE, PROTOCOLS, RESTRICTED, RWALK, Contender, contenders
from benchmarks.beside_avalanche.remembered import asked_for
from benchmarks.beside_avalanche.remembered import differences as differences_of
from benchmarks.beside_avalanche.runs import carry_out
from benchmarks.beside_avalanche.study import Plan, choose, with_lambda
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from rwalk.experiments import run
from rwalk.experiments.data import stream_of
from rwalk.metrics import AccuracyMatrix
from rwalk.models import MultiTaskModule
from rwalk.streams import TensorData, class_incremental
from rwalk.streams.loader import TensorLoader
from rwalk.training import ReplayPlugin

SINGLE, MULTI = PROTOCOLS
DIGITS = {"benchmark": "split-digits", "epochs": 2, "batch_size": 32}


@pytest.fixture
def small():
    return class_incremental("small", _data(12), _data(3), 3)


def _data(per_class):
    labels = torch.arange(6).repeat_interleave(per_class)
    return TensorData(nn.functional.one_hot(labels, 6).float(), labels)


def test_examples_in_docstrings():
    failed, tried = doctest.testmod(importlib.import_module("benchmarks.beside_avalanche.passes"))
    assert (failed, tried > 0) == (0, True)


def test_both_sides_follow_the_tables_run_and_share_what_avalanches_plugins_can_be_told():
    spec = SINGLE.spec(
        {**DIGITS, "replay_batch_size": 128, "rwalk": {"ewc_alpha": 0.7, "delta_t": 7, "damping_scale": "relative"}}
    )
    ours, restricted, theirs = contenders(spec, stream_of(spec))
    assert (ours.label, restricted.label, theirs.label) == (RWALK, RESTRICTED, AVALANCHE)
    assert ours.spec == spec
    different = {"method", "rwalk"}
    assert theirs.spec.model_dump(exclude=different) == spec.model_dump(exclude=different)
    assert theirs.spec.rwalk == {"ewc_lambda": spec.rwalk_config.ewc_lambda, "ewc_alpha": 0.7, "delta_t": 7}
    assert restricted.spec.rwalk == spec.rwalk
    assert (spec.exemplars, spec.heads, spec.task_labels) == (10, "masked", False)
    assert (MULTI.spec(DIGITS).exemplars, MULTI.spec(DIGITS).heads, MULTI.spec(DIGITS).task_labels) == (
        0,
        "multi",
        True,
    )


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"replay_batch_size": 20}, []),
        ({"replay_batch_size": 10}, []),
        ({"replay_batch_size": None, "batch_size": 5}, []),
        ({"replay_batch_size": 128}, ["a memory of 20 to 80"]),
        ({"replay_batch_size": 30}, ["a memory of 20 to 80"]),
        ({"replay_batch_size": "balanced", "batch_size": 10}, []),
        ({"replay_batch_size": "balanced", "batch_size": 32}, ["rwalk's hold 32 to 128, "]),
        ({"replay_batch_size": 20, "sampler": "entropy"}, ["chooses them by entropy"]),
        ({"replay_batch_size": 20, "sampler": "mean-of-features"}, []),
        ({"replay_batch_size": 128, "sampler": "entropy"}, ["chooses them by entropy", "a memory of 20 to 80"]),
        ({"exemplars": 0}, []),
        ({"exemplars": 0, "sampler": "entropy"}, []),
        ({"exemplars": 0, "exemplars_total": 40, "replay_batch_size": 40}, []),
        ({"exemplars": 0, "exemplars_total": 40, "replay_batch_size": 41}, ["a memory of 40 in passes"]),
    ],
)
def test_what_avalanches_replay_does_otherwise_is_told_and_brings_a_row_of_its_own(changes, found):
    spec = SINGLE.spec({**DIGITS, "sampler": "uniform", "replay_batch_size": 20, **changes})
    if changes.get("replay_batch_size", 0) is None:
        spec = spec.model_copy(update={"replay_batch_size": None})
    told = differences_of(spec, stream_of(spec))
    assert len(told) == len(found)
    assert all(part in text for part, text in zip(found, told, strict=True))
    labels = [side.label for side in contenders(spec, stream_of(spec))]
    assert labels == ([RWALK, RESTRICTED, AVALANCHE] if found else [RWALK, AVALANCHE])
    for side in contenders(spec, stream_of(spec))[1:]:
        assert side.spec.sampler == ("uniform" if spec.sampler == "entropy" else spec.sampler)


def test_several_heads_have_no_features_that_avalanche_could_ask_for(small):
    spec = MULTI.spec({**DIGITS, "sampler": "mean-of-features", "exemplars": 3, "replay_batch_size": 6})
    assert differences_of(spec, small) == [
        "exemplars: rwalk chooses them by mean-of-features, Avalanche draws them uniformly in each class"
    ]
    assert contenders(spec, small)[-1].spec.sampler == "uniform"


def test_small_classes_fill_less_of_the_memory(small):
    spec = SINGLE.spec({**DIGITS, "sampler": "uniform", "exemplars": 20, "replay_batch_size": 24})
    assert differences_of(spec, small) == []
    assert "a memory of 24 to 48" in differences_of(spec.model_copy(update={"replay_batch_size": 40}), small)[0]


def test_a_batch_asks_for_what_the_spec_says(small):
    spec = SINGLE.spec({**DIGITS, "batch_size": 30, "replay_batch_size": 7})
    assert asked_for(spec, small) == [7, 7]
    assert asked_for(spec.model_copy(update={"replay_batch_size": None}), small) == [30, 30]
    balanced = spec.model_copy(update={"replay_batch_size": "balanced"})
    assert asked_for(balanced, small) == [30, 60]
    uneven = class_incremental("uneven", _data(2), _data(2), sizes=[1, 2, 3])
    assert asked_for(balanced, uneven) == [15, 30]


def test_held_out_data_cannot_be_asked_for_twice():
    with pytest.raises(ValueError, match=r"validation=0\.2: λ is chosen on held-out data"):
        SINGLE.spec({**DIGITS, "validation": 0.2})


@given(st.integers(1, 30), st.integers(1, 12), st.integers(1, 40))
def test_a_pass_shows_every_old_sample_once_and_no_batch_shows_one_twice(old, size, batches):
    new = TensorLoader(TensorData(torch.full((batches, 1), -1.0), torch.zeros(batches).long()), 1, shuffle=False)
    remembered = TensorData(torch.arange(old).float().unsqueeze(1), torch.ones(old).long())
    loader = PassesLoader(new, remembered, size)
    shown = []
    for x, y, _ in loader:
        assert x[0] == -1.0
        assert y.tolist() == [0, *[1] * (len(y) - 1)]
        shown.append(x[1:, 0].tolist())
    assert len(loader) == len(shown) == batches
    expected = [min(size, old - start) for start in range(0, old, size)]
    rounds = -(-batches // len(expected))
    assert [len(part) for part in shown] == (expected * rounds)[:batches]
    for start in range(0, batches - len(expected) + 1, len(expected)):
        one_pass = [value for part in shown[start : start + len(expected)] for value in part]
        assert sorted(one_pass) == list(range(old))


def test_replay_in_passes_takes_over_budget_sampler_and_batch_size():
    like = ReplayInPasses.like(ReplayPlugin(mem_size=7, batch_size_mem=3, sampler="entropy"))
    assert (like.memory.per_class, like.memory.total, like.memory.sampler.name) == (None, 7, "entropy")
    assert like.batch_size_mem == 3
    assert ReplayInPasses.like(ReplayPlugin(per_class=4)).memory.per_class == 4


def test_ours_is_what_rwalk_run_does():
    spec = SINGLE.spec(DIGITS).model_copy(update={"seed": 3, "epochs": 1})
    expected = run(spec).matrix.values.tril()
    assert torch.equal(by_rwalk(spec).values.nan_to_num(), expected)


def test_other_replay_settings_change_only_what_happens_after_the_first_experience():
    spec = SINGLE.spec({**DIGITS, "replay_batch_size": 128})
    plain, passes = by_rwalk(spec).values, by_rwalk_in_passes(spec).values
    assert plain[0, 0] == passes[0, 0]
    assert not torch.equal(plain.nan_to_num(), passes.nan_to_num())


def test_the_beginning_has_the_weights_of_the_seed_and_all_heads():
    spec = MULTI.spec(DIGITS)
    data = stream_of(spec)
    one, optimizer = beginning(spec, data)
    again = beginning(spec, data)[0]
    other = beginning(spec.model_copy(update={"seed": 1}), data)[0]
    assert list(one.classifier.classifiers) == ["0", "1", "2", "3", "4"]
    assert {id(p) for group in optimizer.param_groups for p in group["params"]} == {id(p) for p in one.parameters()}
    for name, value in one.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    assert not torch.equal(one.features[1].weight, other.features[1].weight)


class Fixed(nn.Module):
    """Likes class 5 best, then 4, …; its own class is in the input."""

    def __init__(self, gain):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain))

    def forward(self, x):
        return self.gain * x + torch.arange(6.0)


class ByTask(MultiTaskModule):
    """Is right where the sample's task label is even."""

    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward_single_task(self, x, task_label):
        return x if task_label % 2 == 0 else -x


def test_accuracies_are_those_among_the_classes_seen(small):
    stream = small.test_stream
    assert accuracies(Fixed(10.0), stream, range(6)) == [1.0, 1.0, 1.0]
    assert accuracies(Fixed(0.0), stream, range(6)) == [0.0, 0.0, 0.5]
    assert accuracies(Fixed(0.0), stream[:2], [0, 1, 2, 3]) == [0.0, 0.5]
    assert accuracies(Fixed(0.0), stream[:1], [0, 1]) == [0.5]


def test_models_that_take_task_labels_get_them():
    tasks = class_incremental("tasks", _data(2), _data(2), 3, task_labels=True)
    assert accuracies(ByTask(), tasks.test_stream, range(6)) == [1.0, 0.0, 1.0]


def _learns(**figures):
    """A stand-in for a framework: its average accuracy by λ and seed."""

    def learn(spec):
        known = figures["held_out" if spec.validation else "test"]
        value = known[spec.rwalk["ewc_lambda"]]
        if isinstance(value, Exception):
            raise value
        matrix = AccuracyMatrix(1)
        matrix.record(0, [value + spec.seed / 100])
        return matrix

    return learn


def _studied(monkeypatch, sides, spec=None, **plan):
    """A study of stand-ins; the reference is not trained."""
    monkeypatch.setattr(study, "contenders", lambda spec, data: [Contender(n, spec, f) for n, f in sides.items()])
    monkeypatch.setattr(study, "last_reference", lambda spec: (1.0,))
    spec = spec or MULTI.spec(DIGITS)
    settings = {"grid": (1.0, 10.0), "seeds": (0, 1, 2), "tuning_seeds": (0, 1), "jobs": 1, **plan}
    return study.study(MULTI, spec, Plan(**settings))


def test_each_side_gets_its_best_lambda_of_the_held_out_data_and_is_compared_seed_by_seed(monkeypatch):
    ours = _learns(held_out={1.0: 0.5, 10.0: 0.4}, test={1.0: 0.6, 10.0: 0.9})
    theirs = _learns(held_out={1.0: 0.1, 10.0: 0.3}, test={1.0: 0.9, 10.0: 0.55})
    found = _studied(monkeypatch, {RWALK: ours, AVALANCHE: theirs})
    assert found.chosen == {RWALK: 1.0, AVALANCHE: 10.0}
    first, second = found.rows
    assert first.values("average_accuracy") == pytest.approx({0: 0.6, 1: 0.61, 2: 0.62})
    assert second.values("intransigence") == pytest.approx({0: 0.45, 1: 0.44, 2: 0.43})
    difference = first.differences["average_accuracy"]
    assert (difference.mean, difference.wins, difference.pairs) == (pytest.approx(0.05), 3, 3)
    assert second.differences == {}
    assert {value: row.spread("average_accuracy")[0] for value, row in found.tuning[AVALANCHE].items()} == (
        pytest.approx({1.0: 0.105, 10.0: 0.305})
    )


def test_finished_runs_are_found_again_failed_ones_are_not_kept(tmp_path):
    spec, tried = MULTI.spec(DIGITS), []

    def learn(spec):
        tried.append((spec.seed, spec.lr))
        if spec.seed == 1 and len(tried) < 3:
            raise RuntimeError("not finite")
        matrix = AccuracyMatrix(2)
        matrix.record(0, [0.25])
        matrix.record(1, [0.125, 0.5])
        return matrix

    side = Contender(RESTRICTED, spec, learn)
    first = carry_out([side], [0, 1], jobs=1, folder=tmp_path)
    assert [outcome.error for outcome in first] == [None, "RuntimeError: not finite"]
    again = carry_out([side], [0, 1], jobs=1, folder=tmp_path, reference=(None, 0.75))
    assert [(outcome.reused, outcome.error) for outcome in again] == [(True, None), (False, None)]
    assert [outcome.result.metrics["intransigence"] for outcome in again] == [0.25, 0.25]
    assert [outcome.result.metrics["forgetting"] for outcome in again] == [0.125, 0.125]
    assert [outcome.result.spec.seed for outcome in again] == [0, 1]
    other = Contender(RESTRICTED, spec.model_copy(update={"lr": 0.5}), learn)
    assert not any(outcome.reused for outcome in carry_out([other], [0], jobs=1, folder=tmp_path))
    assert tried == [(0, 1e-3), (1, 1e-3), (1, 1e-3), (0, 0.5)]


def test_a_lambda_that_failed_is_not_chosen_and_a_side_that_always_fails_is_told(monkeypatch):
    ours = _learns(held_out={1.0: RuntimeError("not finite"), 10.0: 0.4}, test={10.0: 0.9})
    theirs = _learns(held_out={1.0: RuntimeError("not finite"), 10.0: RuntimeError("too")}, test={})
    found = _studied(monkeypatch, {RWALK: ours, AVALANCHE: theirs})
    assert found.chosen == {RWALK: 10.0, AVALANCHE: None}
    assert [row.label for row in found.rows] == [RWALK]
    result = command.BesideAvalanche()
    command._add(result, found, Plan(grid=(1.0, 10.0), seeds=(0,), tuning_seeds=(0,)))
    assert "multi-head, Avalanche: no λ finished on held-out data: RuntimeError: not finite" in result.notes
    assert "multi-head, rwalk: the best λ, 10, is at the end of the grid" in result.notes


def test_a_run_that_fails_on_the_test_data_is_told_and_the_rest_is_compared(monkeypatch):
    def theirs(spec):
        if spec.seed == 1:
            raise RuntimeError("not finite\nand more")
        return _learns(held_out={1.0: 0.3, 10.0: 0.1}, test={1.0: 0.5})(spec)

    ours = _learns(held_out={1.0: 0.5, 10.0: 0.4}, test={1.0: 0.6})
    found = _studied(monkeypatch, {RWALK: ours, AVALANCHE: theirs}, tuning_seeds=(0,))
    assert found.rows[1].errors == {1: "RuntimeError: not finite"}
    assert found.rows[0].differences["average_accuracy"].pairs == 2
    assert found.rows[0].differences["average_accuracy"].mean == pytest.approx(0.1)


def test_a_side_that_fails_on_all_of_the_test_data_has_a_row_without_figures(monkeypatch):
    theirs = _learns(held_out={1.0: 0.3, 10.0: 0.1}, test={1.0: RuntimeError("not finite")})
    ours = _learns(held_out={1.0: 0.5, 10.0: 0.4}, test={1.0: 0.6})
    found = _studied(monkeypatch, {RWALK: ours, AVALANCHE: theirs}, seeds=(0,))
    result = command.BesideAvalanche()
    command._add(result, found, Plan(grid=(1.0, 10.0), seeds=(0,), tuning_seeds=(0,)))
    first, second = result.rows
    assert (first["A %"], first["A % less Avalanche"], second["A %"], second["λ"]) == ("60.0", None, None, "1")
    assert "multi-head, Avalanche, seed 0 failed: RuntimeError: not finite" in result.notes
    assert result.ratios == {}


def test_lambda_is_the_only_setting_that_a_candidate_changes():
    spec = SINGLE.spec({**DIGITS, "rwalk": {"damping_scale": "relative"}})
    side = with_lambda(Contender("x", spec, by_rwalk), 0.3, 0.1)
    assert side.label == "x, λ=0.3"
    assert side.spec.rwalk == {"damping_scale": "relative", "ewc_lambda": 0.3}
    assert side.spec.validation == 0.1
    assert side.spec.model_dump(exclude={"rwalk", "validation"}) == spec.model_dump(exclude={"rwalk", "validation"})


def test_nothing_is_chosen_from_nothing():
    assert choose({}) is None


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"grid": ()}, r"grid=\[\]: expected values of λ"),
        ({"grid": (-1.0, 1.0)}, r"grid=\[-1\.0, 1\.0\]: expected values of λ, at least 0"),
        ({"seeds": ()}, r"seeds=\(\)"),
        ({"tuning_seeds": ()}, r"tuning_seeds=\(\)"),
    ],
)
def test_a_plan_of_nothing_is_refused(plan, message):
    with pytest.raises(ValueError, match=message):
        Plan(**{"grid": (1.0,), "seeds": (0,), "tuning_seeds": (0,), **plan})


def test_what_is_wrong_with_the_command_line_is_told_in_one_line_and_nothing_is_written(monkeypatch, tmp_path):
    target = tmp_path / "new" / "beside.json"
    monkeypatch.setattr(command, "why_not", lambda peer: None)
    with pytest.raises(SystemExit, match=r"^error: unknown benchmark 'split-nothing'"):
        command.main(["--set", "benchmark=split-nothing", "--json", str(target)])
    monkeypatch.setattr(command, "why_not", lambda peer: "avalanche is not measured: gone")
    with pytest.raises(SystemExit, match=r"^error: avalanche is not measured: gone; run this in the environment of"):
        command.main(["--json", str(target)])
    assert not target.parent.exists()


def test_the_page_wants_a_file(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["page"])
    assert print_section() == 2
    assert "expected the file" in capsys.readouterr().err
