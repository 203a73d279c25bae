"""The course that a run keeps: right, small, the same after an interruption, and without effect on what is learned."""

import json

import pytest
import torch

from rwalk.errors import CheckpointError
from rwalk.experiments import RunResult, RunSpec, run
from rwalk.experiments.recording import LOOKS, POINTS, Record, Recorder
from rwalk.experiments.runner import build_plugins, build_strategy
from rwalk.streams import benchmark
from rwalk.training import BasePlugin, CheckpointPlugin
from rwalk.training.plugins.checkpoints import Stopped

SPEC = RunSpec(benchmark="split-digits", method="rwalk", n_experiences=3, epochs=2, hidden=(8,), rwalk={"delta_t": 3})


class Witness(BasePlugin):
    """Takes everything down, by itself."""

    def __init__(self):
        self.losses, self.penalties, self.shares, self.drift = [], [], [], []

    def _core(self, strategy):
        return next(plugin.rwalk for plugin in strategy.plugins if hasattr(plugin, "rwalk"))

    def before_training_exp(self, strategy, **kwargs):
        self.losses.append([])
        self.penalties.append([])

    def after_training_iteration(self, strategy, **kwargs):
        self.losses[-1].append(float(strategy.loss.detach()))
        self.penalties[-1].append(float(self._core(strategy).penalty().detach()))

    def after_training(self, strategy, **kwargs):
        core, found = self._core(strategy), {}
        for kind in ("penalty", "fisher", "score"):
            sums = {}
            for name, value in core.importances(kind).items():
                layer = name.rpartition(".")[0]
                sums[layer] = sums.get(layer, 0.0) + float(value.double().sum())
            found[kind] = {layer: value / sum(sums.values()) for layer, value in sums.items()}
        self.shares.append(found)


@pytest.fixture(scope="module")
def learned():
    witness = Witness()
    return run(SPEC, plugins=[witness]), witness


def test_loss_and_penalty_are_those_of_training(learned):
    result, witness = learned
    record = Record(**result.record)
    assert [course.experience for course in record.course] == [0, 1, 2]
    for course, losses, penalties in zip(record.course, witness.losses, witness.penalties, strict=True):
        before = 0
        for point, step in enumerate(course.step):
            part = losses[before:step]
            assert course.loss[point] == pytest.approx(sum(part) / len(part), rel=1e-3)
            expected = None if course.experience == 0 else pytest.approx(penalties[step - 1], rel=1e-3)
            assert course.penalty[point] == expected
            before = step


def test_layers_are_shares_of_the_importances(learned):
    result, witness = learned
    record = Record(**result.record)
    assert record.looks == [0, 1, 2]
    for layer in record.layers:
        for look, shares in enumerate(witness.shares):
            assert layer.importance[look] == pytest.approx(shares["penalty"][layer.name], rel=1e-3)
            assert layer.fisher[look] == pytest.approx(shares["fisher"][layer.name], rel=1e-3)
            assert layer.score[look] == pytest.approx(shares["score"][layer.name], rel=1e-3)
        assert layer.drift[0] is None
        assert all(drift > 0 for drift in layer.drift[1:])
        assert all(0 <= held <= 1 for held in layer.held)


@pytest.mark.parametrize("average", [False, True])
def test_drift_is_that_of_the_weights_which_the_experience_leaves(average):
    class Anchors(BasePlugin):
        def __init__(self):
            self.before, self.drift = {}, []

        def after_training(self, strategy, **kwargs):
            core = next(plugin.rwalk for plugin in strategy.plugins if hasattr(plugin, "rwalk"))
            weights = dict(strategy.model.named_parameters())
            sums = {}
            for name, anchor in self.before.items():
                both = sums.setdefault(name.rpartition(".")[0], [0.0, 0.0])
                both[0] += float((weights[name].detach() - anchor).square().sum())
                both[1] += float(anchor.square().sum())
            self.drift.append({layer: (moved / held) ** 0.5 for layer, (moved, held) in sums.items()})
            self.before = core.anchors()

    witness = Anchors()
    record = Record(**run(SPEC.model_copy(update={"average_weights": average}), plugins=[witness]).record)
    for layer in record.layers:
        assert layer.drift == [None, *(pytest.approx(found[layer.name], rel=1e-3) for found in witness.drift[1:])]


def test_it_changes_nothing_that_is_learned(learned):
    result, _ = learned
    data = benchmark("split-digits", n_experiences=3)
    torch.manual_seed(SPEC.seed)
    strategy = build_strategy(SPEC, data, build_plugins(SPEC))
    for experience in data.train_stream:
        strategy.train(experience)
        strategy.eval(data.test_stream)
    assert strategy.evaluator.matrices["test"].tolist() == result.matrix.tolist()


def test_it_is_stored_and_read_again(learned):
    result, _ = learned
    stored = json.loads(json.dumps(result.to_dict()))
    assert RunResult.from_dict(stored).to_dict() == result.to_dict()
    assert len(json.dumps(stored["record"])) < 5000
    del stored["record"]
    assert RunResult.from_dict({**stored}).record is None


def test_an_interrupted_run_keeps_the_same_course(learned, tmp_path):
    class Stop(BasePlugin):
        def after_training_iteration(self, strategy, **kwargs):
            if strategy.clock.train_iterations == 40:
                checkpoint.stop()

    checkpoint = CheckpointPlugin(tmp_path, every=0)
    with pytest.raises(Stopped):
        run(SPEC, plugins=[Stop()], checkpoint=checkpoint)
    again = run(SPEC, plugins=[BasePlugin()], checkpoint=CheckpointPlugin(tmp_path, every=0))
    assert again.record == learned[0].record


@pytest.mark.parametrize(
    "change", [{"looks": [0]}, {"course": 3}, {"layers": [{}]}, {"more": 1}, {"looks": [-1, 0, 1]}]
)
def test_a_record_that_none_can_have_kept_is_refused(learned, change):
    stored = learned[0].to_dict()
    with pytest.raises(CheckpointError, match="not a stored run"):
        RunResult.from_dict({**stored, "record": {**stored["record"], **change}})


def test_other_methods_have_a_loss_only():
    record = Record(**run(RunSpec(benchmark="split-digits", method="fine-tuning", n_experiences=2, hidden=(4,))).record)
    assert record.layers == []
    assert all(value is None for course in record.course for value in course.penalty)
    assert all(value > 0 for course in record.course for value in course.loss)


def test_many_experiences_keep_few_points():
    from types import SimpleNamespace as Some

    recorder, count = Recorder(), 5000
    for place in range(count):
        experience = Some(current_experience=place, origin_stream=range(count))
        strategy = Some(experience=experience, train_epochs=1, dataloader=range(3), plugins=[], loss=torch.tensor(1.0))
        recorder.before_training_exp(strategy)
        for iteration in range(3):
            strategy.clock = Some(train_exp_iterations=iteration)
            recorder.after_training_iteration(strategy)
        assert recorder._looks_now(strategy) == (place == count - 1 or (place + 1) % (count // LOOKS) == 0)
    assert len(recorder.record()["course"]) <= POINTS


def test_a_layer_that_comes_later_has_no_past():
    recorder = Recorder()
    recorder._weights = {"old": 2, "new": 1}
    recorder._looks = [0, 1]
    recorder._seen = [
        {"old": [1.0, 1.0, 1.0, 0.5, None]},
        {"old": [0.4, 0.5, 0.6, 0.5, 0.1], "new": [0.6, 0.5, 0.4, 1.0, None]},
    ]
    old, new = Record(**recorder.record()).layers
    assert (old.importance, new.importance) == ([1.0, 0.4], [None, 0.6])
