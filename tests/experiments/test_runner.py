"""Carrying a spec out: what comes back, and what it depends on."""

import json
import platform

import pytest
import torch

import rwalk
from experiments.small import small
from rwalk.experiments import METHODS, RunSpec, run
from rwalk.experiments.references import reference_spec
from rwalk.experiments.results import SCHEMA_VERSION
from rwalk.experiments.runner import build_plugins, build_strategy
from rwalk.experiments.spec import LATER
from rwalk.streams import TensorData, class_incremental
from rwalk.training import (
    DiscriminantPlugin,
    NearestMeanPlugin,
    OptimizerResetPlugin,
    ReplayPlugin,
    WeightAveragePlugin,
)
from rwalk.training.plugins.judging import JudgedByExemplars
from training.toys import Recorder

METRICS = {
    "average_accuracy",
    "forgetting",
    "intransigence",
    "backward_transfer",
    "forward_transfer",
    "learning_accuracy",
}


@pytest.fixture(scope="module")
def finished():
    """One run of each method."""
    return {method: run(small(method)) for method in METHODS}


@pytest.mark.parametrize("method", METHODS)
def test_a_result_says_what_was_run_and_what_came_of_it(finished, method):
    result = finished[method].to_dict()
    assert set(result) == {
        "schema_version",
        "config",
        "versions",
        "seconds",
        "accuracy_matrix",
        "untrained",
        "reference",
        *METRICS,
        "record",
        "checksum",
    }
    assert result["schema_version"] == SCHEMA_VERSION == 3
    written = json.loads(json.dumps(result, allow_nan=False))
    assert RunSpec(**written["config"]).rwalk_config == finished[method].spec.rwalk_config
    rows = result["accuracy_matrix"]
    assert [len(row) for row in rows] == [3, 3, 3]
    assert all(0.0 <= value <= 1.0 for row in rows for value in row)
    assert result["average_accuracy"] == pytest.approx(sum(rows[2]) / 3)
    best = [max(rows[0][j], rows[1][j]) for j in range(2)]
    assert result["forgetting"] == pytest.approx(sum(b - rows[2][j] for j, b in enumerate(best)) / 2)
    assert result["forward_transfer"] is not None
    assert result["intransigence"] is result["reference"] is None
    assert result["seconds"] > 0


def test_the_configuration_is_complete_and_runs_again(finished):
    config = finished["rwalk"].to_dict()["config"]
    assert set(config["rwalk"]) == set(rwalk.RWalkConfig().to_dict())
    again = RunSpec(**config)
    assert again.rwalk_config == finished["rwalk"].spec.rwalk_config
    assert run(again).matrix.tolist() == finished["rwalk"].matrix.tolist()


def test_versions_are_those_installed(finished):
    versions = finished["rwalk"].to_dict()["versions"]
    assert versions["rwalk"] == rwalk.__version__
    assert torch.__version__.split("+")[0] == versions["torch"].split("+")[0]  # only one may name its build
    assert versions["python"] == platform.python_version()
    assert {"numpy", "scikit-learn", "datasets"} <= set(versions)


def test_the_same_seed_gives_the_same_result_and_another_seed_another():
    first, second, other = (run(small(exemplars=2, seed=seed)) for seed in (5, 5, 6))
    ours, again = first.to_dict(), second.to_dict()
    ours, again = ({**one, "seconds": 0, "checksum": 0} for one in (ours, again))
    assert ours == again
    assert other.matrix.tolist() != first.matrix.tolist()


def test_the_result_does_not_depend_on_what_was_drawn_before(finished):
    torch.rand(17)
    assert run(small("rwalk")).matrix.tolist() == finished["rwalk"].matrix.tolist()


def test_the_seed_draws_the_order_of_classes_only_if_asked():
    def classes(**settings):
        recorder = Recorder(
            lambda strategy: strategy.experience.classes_in_this_experience if strategy.experience else None
        )
        run(small(seed=3, **settings), plugins=[recorder])
        return recorder.notes("after_training_exp")

    assert classes() == [(0, 1, 2, 3), (4, 5, 6), (7, 8, 9)]
    shuffled = classes(shuffle_classes=True)
    assert shuffled != classes()
    assert sorted(label for group in shuffled for label in group) == list(range(10))


def test_a_joint_run_sees_all_data_so_far_from_fresh_weights():
    def note(strategy):
        return len(strategy.adapted_dataset), next(strategy.model.parameters()).detach().clone()

    recorder = Recorder(note, "before_training_exp")
    result = run(small("joint", shuffle_classes=False), plugins=[recorder])
    sizes = [size for size, _ in recorder.notes("before_training_exp")]
    assert sizes[0] < sizes[1] < sizes[2] == 1257
    starts = [weight for _, weight in recorder.notes("before_training_exp")]
    assert not torch.equal(starts[0], starts[1])
    assert all(float(start.abs().max()) <= 1 / 8 for start in starts)  # initial weights of 64 inputs lie within 1/√64
    assert result.spec.method == "joint"


def test_a_joint_run_is_the_reference_of_intransigence():
    joint = run(small("joint", epochs=3))
    diagonal = [row[index] for index, row in enumerate(joint.matrix.tolist())]
    result = run(small("fine-tuning", epochs=3), reference=diagonal)
    stored = result.to_dict()
    assert stored["reference"] == diagonal
    assert stored["intransigence"] == pytest.approx(diagonal[2] - stored["accuracy_matrix"][2][2])
    with pytest.raises(ValueError, match="the reference has 2 accuracies for 3 experiences"):
        run(small(), reference=diagonal[:2])


def test_tests_of_tasks_to_come_can_be_left_out_and_change_nothing_else(finished):
    whole, part = finished["rwalk"].to_dict(), run(small("rwalk").model_copy(update={"test_ahead": False})).to_dict()
    square = [
        [value if j <= k else None for j, value in enumerate(row)] for k, row in enumerate(whole["accuracy_matrix"])
    ]
    assert part["accuracy_matrix"] == square
    assert part["untrained"] is part["forward_transfer"] is None
    for metric in ("average_accuracy", "backward_transfer", "learning_accuracy"):
        assert part[metric] == whole[metric]


def test_what_was_stored_before_a_setting_came_is_the_same_run():
    spec = small("rwalk")
    assert set(spec.canonical()) == set(RunSpec.model_fields) - set(LATER)
    other = spec.model_copy(update={"test_ahead": False})
    assert other.canonical() == spec.canonical() | {"test_ahead": False}
    assert RunSpec(**other.canonical()).canonical() == other.canonical()
    assert reference_spec(other) == reference_spec(spec)


@pytest.mark.parametrize(("by", "kind"), [("nearest-mean", NearestMeanPlugin), ("discriminant", DiscriminantPlugin)])
@pytest.mark.parametrize(("heads", "classifier"), [("masked", None), ("multi", "classifier")])
def test_a_spec_says_what_judges_and_how_the_optimizer_begins(heads, classifier, by, kind):
    plain = RunSpec(
        benchmark="split-digits", method="rwalk", exemplars=2, heads=heads, task_labels=True, epochs=1, only_first=2
    )
    spec = plain.model_copy(update={"classifier": by, "reset_optimizer": True})
    added = [plugin for plugin in build_plugins(spec) if isinstance(plugin, JudgedByExemplars | OptimizerResetPlugin)]
    judge, _ = added
    assert [type(plugin) for plugin in added] == [kind, OptimizerResetPlugin]
    assert (judge.layer, judge.classifier) == (None, classifier)
    assert not any(isinstance(plugin, JudgedByExemplars | OptimizerResetPlugin) for plugin in build_plugins(plain))
    judged = run(plain.model_copy(update={"classifier": by}))
    assert judged.matrix.tolist() != run(plain).matrix.tolist()


@pytest.mark.parametrize(("method", "place"), [("rwalk", 1), ("mas", 0), ("fine-tuning", 0)])
def test_a_spec_says_whether_experiences_end_at_the_average_of_the_weights(method, place, tmp_path):
    spec = RunSpec(benchmark="split-digits", method=method, exemplars=2, epochs=2, only_first=2, average_weights=True)
    plugins = build_plugins(spec)
    assert isinstance(plugins[place], WeightAveragePlugin)
    assert isinstance(plugins[-1], ReplayPlugin)
    plain = spec.model_copy(update={"average_weights": False})
    assert not any(isinstance(plugin, WeightAveragePlugin) for plugin in build_plugins(plain))
    for name, learned in (("average", spec), ("last", plain)):
        run(learned, weights=tmp_path / name)
    assert (tmp_path / "average").read_bytes() != (tmp_path / "last").read_bytes()
    assert reference_spec(spec) == reference_spec(plain)


def test_methods_of_the_core_hold_the_average_if_experiences_end_there_and_nothing_else_is_said():
    spec = RunSpec(benchmark="split-digits", method="rwalk", average_weights=True)
    assert spec.canonical()["rwalk"]["anchor_at"] == "average"
    told = RunSpec(benchmark="split-digits", method="rwalk", average_weights=True, rwalk={"anchor_at": "last"})
    assert told.rwalk_config.anchor_at == "last"
    assert RunSpec(benchmark="split-digits", method="rwalk").rwalk_config.anchor_at == "last"


def test_in_bfloat16_the_network_computes_coarser_and_the_weights_stay_float32():
    networks, outputs = [], []

    def note(strategy):
        networks.append(strategy.model)
        outputs.append(strategy.mb_output.detach().clone())

    spec = small("rwalk").model_copy(update={"epochs": 1})
    for precision in ("float32", "bfloat16"):
        run(spec.model_copy(update={"precision": precision}), plugins=[Recorder(note, "after_forward")])
        assert {parameter.dtype for parameter in networks[-1].parameters()} == {torch.float32}
    exact, coarse = outputs[0], outputs[len(outputs) // 2]
    assert exact.dtype is coarse.dtype is torch.float32
    assert not torch.equal(exact, coarse)
    torch.testing.assert_close(coarse, exact, rtol=2**-5, atol=2**-5)
    last_exact, last = (dict(network.named_parameters()) for network in (networks[0], networks[-1]))
    moved = [
        (last[name] - value).norm() / value.norm() for name, value in last_exact.items() if name.endswith("weight")
    ]
    assert 0 < max(moved) < 0.1


def test_images_of_a_run_in_bfloat16_lie_channels_last():
    seen = []
    images = TensorData(torch.rand(8, 3, 8, 8), torch.arange(8) % 4)
    data = class_incremental("images", images, images, 2)
    spec = RunSpec(benchmark="split-cifar100", method="rwalk", model="paper-cnn", batch_size=4, precision="bfloat16")
    recorder = Recorder(lambda strategy: seen.append((strategy.mb_x, strategy.mb_output)), "after_forward")
    strategy = build_strategy(spec, data, [*build_plugins(spec), recorder])
    for experience in data.train_stream:
        strategy.train(experience)
    assert seen
    for x, output in seen:
        assert x.shape == (4, 3, 8, 8)
        assert x.is_contiguous(memory_format=torch.channels_last)
        assert output.dtype is torch.float32
    evaluated = strategy.eval(data.test_stream)
    assert 0.0 <= evaluated["Top1_Acc_Stream/eval_phase/test_stream"] <= 1.0


def test_rwalk_and_exemplars_change_the_outcome(finished):
    matrices = [finished["fine-tuning"].matrix, finished["rwalk"].matrix, run(small(exemplars=2)).matrix]
    assert len({str(matrix.tolist()) for matrix in matrices}) == 3
    off = run(small(rwalk={"ewc_lambda": 0.0}))
    assert off.matrix.tolist() == finished["fine-tuning"].matrix.tolist()


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd", "momentum"])
def test_each_optimizer_runs(optimizer):
    recorder = Recorder(lambda strategy: strategy.optimizer, "before_training")
    run(small(optimizer=optimizer, lr=0.05), plugins=[recorder])
    made = recorder.notes("before_training")[0]
    assert (type(made).__name__.lower(), made.defaults["lr"]) == (
        {"momentum": "sgd"}.get(optimizer, optimizer),
        0.05,
    )
    assert made.defaults.get("momentum", 0.0) == (0.9 if optimizer == "momentum" else 0.0)


@pytest.mark.parametrize("device", ["nonsense", "cuda:99"])
def test_a_device_that_this_machine_lacks_is_named_in_one_line(device):
    with pytest.raises(ValueError, match=f"device={device!r} cannot be used") as caught:
        run(small(device=device))
    assert len(str(caught.value).splitlines()) == 1
