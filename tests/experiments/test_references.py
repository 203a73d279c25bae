"""The jointly trained reference: trained once for all that it is the same for, and as one would by hand."""

import json
import multiprocessing
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from experiments.small import small
from rwalk.experiments import RunSpec, last_reference, reference_for, run
from rwalk.experiments.data import fingerprint, stream_of
from rwalk.experiments.references import reference_folder, reference_key
from rwalk.streams import Benchmark, Stream, TensorData

#: One other value of each setting that a reference depends on.
MATTERS = {
    "benchmark": "permuted-digits",
    "n_experiences": 2,
    "only_first": 2,
    "class_order": (9, 8, 7, 6, 5, 4, 3, 2, 1, 0),
    "sizes": (4, 2, 4),
    "shuffle_classes": True,
    "task_labels": True,
    "model": "experiments.networks:plain",
    "model_options": {"hidden": (5,)},
    "hidden": (7,),
    "heads": "masked",
    "epochs": 2,
    "batch_size": 16,
    "lr": 5e-3,
    "optimizer": "sgd",
    "validation": 0.25,
    "device": "meta",
    "precision": "bfloat16",
    "threads": 2,
}

#: Other values of those that it does not depend on.
DOES_NOT = {
    "method": st.sampled_from(["fine-tuning", "joint", "ewc++"]),
    "rwalk": st.fixed_dictionaries({"ewc_lambda": st.floats(0.0, 10.0), "delta_t": st.integers(1, 9)}),
    "options": st.just({}),
    "exemplars": st.integers(1, 9),
    "exemplars_total": st.integers(1, 99),
    "sampler": st.sampled_from(["entropy", "mean-of-features"]),
    "sampler_layer": st.just("classifier"),
    "replay_batch_size": st.integers(1, 99),
    "reset_optimizer": st.booleans(),
    "average_weights": st.booleans(),
    "classifier": st.sampled_from(["nearest-mean", "discriminant"]),
    "test_ahead": st.booleans(),
    "seed": st.integers(0, 2**40),
}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "references"


def files(folder):
    return sorted(path for path in folder.glob("*.json"))


def test_every_setting_is_known_to_matter_or_not():
    assert set(MATTERS) | set(DOES_NOT) == set(RunSpec.model_fields)
    assert not set(MATTERS) & set(DOES_NOT)


@pytest.mark.parametrize("name", MATTERS)
def test_a_setting_that_matters_has_another_reference(name):
    changes = {name: MATTERS[name]} | ({"n_experiences": None} if name == "sizes" else {})
    assert reference_key(small(**changes), 2) != reference_key(small(), 2)


@given(st.data())
@settings(max_examples=40)
def test_settings_that_do_not_matter_share_the_reference(data):
    names = data.draw(st.sets(st.sampled_from(sorted(DOES_NOT))))
    changes = {name: data.draw(DOES_NOT[name]) for name in sorted(names)}
    changed = small().model_copy(update=changes)  # whatever goes together or not
    assert reference_key(changed, 3) == reference_key(small(), 3)


def test_every_task_and_where_the_seed_draws_the_stream_every_seed_has_its_own():
    assert len({reference_key(small(), k) for k in (1, 2, 3)}) == 3
    assert len({reference_key(small(shuffle_classes=True, seed=seed), 1) for seed in range(3)}) == 3


def test_other_versions_of_what_computes_have_their_own(monkeypatch):
    before = reference_key(small(), 1)
    with monkeypatch.context() as context:
        context.setattr(torch, "__version__", "0.0")
        assert reference_key(small(), 1) != before
    monkeypatch.setattr("rwalk.experiments.references.REVISION", 99)
    assert reference_key(small(), 1) != before


def test_a_network_whose_code_changes_has_another_reference(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = "from torch import nn\ndef net(shape, n):\n    return nn.Linear(shape[0], n)\n"
    Path("my_changing_network.py").write_text(code)
    spec = small(model="my_changing_network:net")
    before = reference_key(spec, 1)
    assert reference_key(spec, 1) == before
    Path("my_changing_network.py").write_text(code + "# and more\n")
    assert reference_key(spec, 1) != before


@given(position=st.integers(0, 59), pixel=st.integers(0, 3))
@settings(max_examples=25)
def test_the_smallest_change_of_the_data_shows(position, pixel):
    x, y = torch.arange(240.0).reshape(60, 4), torch.arange(60) % 2

    def stream(inputs, labels=y, **options):
        return Stream("train", [TensorData(inputs, labels, **options), TensorData(inputs, labels)])

    same = fingerprint(stream(x))
    assert fingerprint(stream(x.clone())) == same
    changed = x.clone()
    changed[position, pixel] += 1
    assert fingerprint(stream(changed)) != same
    swapped = x.clone()
    swapped[[position, position - 1]] = swapped[[position - 1, position]]
    assert fingerprint(stream(swapped)) != same
    relabelled = y.clone()
    relabelled[position] = 2
    assert fingerprint(stream(x, relabelled)) != same
    assert fingerprint(stream(x, transform=lambda batch: batch.flip(1))) != same
    assert fingerprint(stream(x, task_label=1)) != same


def test_views_of_parts_of_data_show_what_they_hold():
    one, other = (
        fingerprint(
            stream_of(RunSpec(benchmark="online-digits", method="rwalk", n_experiences=40, **order)).train_stream
        )
        for order in ({}, {"shuffle_classes": True})
    )
    assert one != other


def test_it_is_trained_once_for_all_methods_and_seeds(folder, monkeypatch):
    specs = [
        small("rwalk"),
        small("fine-tuning", seed=3),
        small("joint", exemplars=2),
        small("ewc++", rwalk={"delta_t": 2}),
    ]
    first = reference_for(specs[0], folder=folder)
    assert len(first) == len(files(folder)) == 3
    monkeypatch.setattr("rwalk.experiments.references.build_strategy", lambda *_: pytest.fail("trained again"))
    for spec in specs:
        assert reference_for(spec, folder=folder) == first
        assert last_reference(spec, folder=folder) == (None, None, first[2])
    assert len(files(folder)) == 3
    stored = json.loads(files(folder)[0].read_text())
    assert RunSpec(**stored["config"]).method == "joint"
    assert stored["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]  # only one may name its build


@pytest.mark.parametrize("k", [1, 2, 3])
def test_it_is_what_joint_training_by_hand_gives(folder, k):
    spec = small(epochs=2, batch_size=50, optimizer="momentum", lr=0.05)
    data = stream_of(spec)
    parts = [data.train_stream[task].dataset for task in range(k)]
    x, y = torch.cat([part.x for part in parts]), torch.cat([part.targets for part in parts])
    torch.manual_seed(0)
    first, second = nn.Linear(64, 16), nn.Linear(16, 10)
    parameters = [*first.parameters(), *second.parameters()]
    velocity = [torch.zeros_like(parameter) for parameter in parameters]
    for _ in range(2):
        order = torch.randperm(len(x))
        for start in range(0, len(x), 50):
            chosen = order[start : start + 50]
            loss = F.cross_entropy(second(first(x[chosen]).relu()), y[chosen])
            gradients = torch.autograd.grad(loss, parameters)
            with torch.no_grad():
                for parameter, speed, gradient in zip(parameters, velocity, gradients, strict=True):
                    speed.mul_(0.9).add_(gradient)
                    parameter.sub_(0.05 * speed)
    test = data.test_stream[k - 1].dataset
    right = (second(first(test.x).relu()).argmax(1) == test.targets).double().mean()
    assert reference_for(spec, folder=folder)[k - 1] == pytest.approx(float(right))
    assert float(right) > 0.3


def test_it_is_judged_by_validation_data_where_runs_are(folder, monkeypatch):
    spec = small(validation=0.3, epochs=3)
    before = last_reference(spec, folder=folder)
    without_test = stream_of(spec)
    poisoned = Benchmark(
        "poisoned",
        without_test.train_stream,
        Stream("test", [TensorData(e.dataset.x * torch.nan, e.dataset.targets) for e in without_test.test_stream]),
        without_test.n_classes,
        without_test.input_shape,
        without_test.valid_stream,
    )
    monkeypatch.setattr("rwalk.experiments.references.stream_of", lambda _: poisoned)
    assert last_reference(spec, folder=folder / "again") == before


def test_intransigence_is_the_reference_less_what_the_run_reached(folder):
    spec = small("fine-tuning", epochs=3)
    joint = reference_for(spec, folder=folder)
    result = run(spec, reference=joint)
    assert result.metrics["intransigence"] == pytest.approx(joint[2] - result.matrix.tolist()[2][2])
    only_last = run(spec, reference=last_reference(spec, folder=folder))
    assert only_last.metrics == result.metrics


def test_several_processes_that_need_it_train_it_once(folder, tmp_path):
    """Forked, so that they begin at the same moment; building the network takes long enough for all to come."""
    stream_of(small())  # else each would import what reads it
    log, processes = tmp_path / "built.txt", multiprocessing.get_context("fork")
    together, answers = processes.Barrier(3), processes.Queue()

    def ask(method, seed):
        options = {"log": str(log), "seconds": 0.5}
        spec = small(method, model="experiments.networks:counted", model_options=options, seed=seed)
        together.wait(60)
        answers.put(last_reference(spec, folder=folder)[-1])

    asking = [
        processes.Process(target=ask, args=(method, seed)) for seed, method in enumerate(("rwalk", "pi", "joint"))
    ]
    for process in asking:
        process.start()
    found = {answers.get(timeout=60) for _ in asking}
    for process in asking:
        process.join(60)
    assert [process.exitcode for process in asking] == [0, 0, 0]
    assert log.read_text() == "built\n"
    assert len(found) == len(files(folder)) == 1


def test_a_training_that_fails_leaves_nothing_that_could_be_taken_for_it(folder):
    spec = small(model="experiments.networks:failing", model_options={"seed": 0})
    with pytest.raises(ArithmeticError):
        last_reference(spec, folder=folder)
    assert files(folder) == []


def test_the_folder_can_be_chosen(tmp_path, monkeypatch):
    monkeypatch.setenv("RWALK_CACHE_DIR", str(tmp_path))
    assert reference_folder() == tmp_path / "references"
    monkeypatch.delenv("RWALK_CACHE_DIR")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert reference_folder() == tmp_path / "home" / ".cache" / "rwalk" / "references"
