"""Streams and networks beyond the usual ones: task-free arrival, users' networks, text, joined data."""

import pytest
import torch
from torch.utils.data import ConcatDataset, Dataset

from experiments.small import small
from rwalk.experiments import RunSpec, reference_for, run
from rwalk.experiments import data as experiments_data
from rwalk.experiments.data import evaluated, so_far, stream_of
from rwalk.streams import Stream, TensorData, class_incremental
from rwalk.training import BasePlugin

ONLINE = {"benchmark": "online-digits", "n_experiences": 30, "hidden": (16,), "epochs": 3, "batch_size": 8, "lr": 0.01}


class Seen(BasePlugin):
    """Counts samples by class as they are trained on, and notes the counts at each evaluation of the whole stream."""

    def __init__(self):
        self.counts, self.at_evaluations = torch.zeros(10, dtype=torch.int64), []

    def after_training_iteration(self, strategy, **kwargs):
        self.counts += strategy.mb_y.bincount(minlength=10)

    def before_eval(self, strategy, **kwargs):
        self.at_evaluations.append(self.counts.clone())


class OneByOne(Dataset):
    """Samples that are not in memory."""

    def __init__(self, data):
        self.data, self.targets = data, data.targets

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        return self.data[index]


def test_a_task_free_stream_is_judged_when_a_group_of_classes_has_come():
    spec, seen = RunSpec(**ONLINE, method="fine-tuning"), Seen()
    result = run(spec, plugins=[seen])
    data = stream_of(spec)
    assert (len(data.train_stream), len(data.test_stream)) == (30, 5)
    totals = torch.zeros(10, dtype=torch.int64)
    for experience in data.train_stream:
        totals = totals + torch.tensor([int(y) for _, y, _ in experience.dataset]).bincount(minlength=10)
    untrained, *after = seen.at_evaluations
    assert len(after) == 5
    assert int(untrained.sum()) == 0
    for group, counts in zip(data.test_stream, after, strict=True):
        classes = list(group.classes_in_this_experience)
        assert counts[classes].tolist() == (3 * totals[classes]).tolist()  # all that will ever come, for three epochs
    rows = result.matrix.tolist()
    assert rows[0][0] > 0.5
    assert rows[4][4] > 0.5
    assert result.metrics["forgetting"] is not None


def test_a_task_free_stream_has_upper_bounds_and_references(tmp_path, monkeypatch):
    monkeypatch.setattr("rwalk.experiments.references.reference_folder", lambda: tmp_path)
    joint = run(RunSpec(**ONLINE, method="joint")).matrix.tolist()
    reference = reference_for(RunSpec(**ONLINE, method="fine-tuning"))
    assert len(reference) == 5
    assert min(reference) > 0.6
    assert min(joint[4]) > 0.6


@pytest.mark.parametrize("benchmark", ["split-digits", "permuted-digits", "blurry-digits"])
def test_where_experiences_correspond_each_one_is_a_task(benchmark):
    data = stream_of(RunSpec(benchmark=benchmark, method="joint"))
    assert evaluated(data).milestones == tuple(range(1, len(data.train_stream) + 1))


@pytest.mark.parametrize("benchmark", ["split-digits", "permuted-digits", "online-digits"])
def test_the_past_together_is_all_samples_so_far_in_memory(benchmark):
    data = stream_of(RunSpec(benchmark=benchmark, method="joint", n_experiences=4, task_labels=benchmark[0] != "o"))
    together = so_far(data, 3)
    parts = data.train_stream[:3]
    assert isinstance(together.dataset, TensorData)
    x, y, tasks = together.dataset.batch(slice(None))
    each = [[part.dataset[i] for i in range(len(part.dataset))] for part in parts]
    samples = [sample for part in each for sample in part]
    assert len(x) == len(samples)
    for position in range(0, len(samples), 97):
        assert torch.equal(x[position], samples[position][0])
        assert (int(y[position]), int(tasks[position])) == tuple(map(int, samples[position][1:]))
    assert together.current_experience == 2
    assert together.classes_in_this_experience == tuple(sorted(set(y.tolist())))


def test_data_that_is_not_in_memory_stays_out_of_it():
    generator = torch.Generator().manual_seed(0)
    tensors = TensorData(torch.randn(12, 3, generator=generator), torch.arange(12) % 4)
    memory = class_incremental("toy", tensors, tensors, 2)
    parts = [OneByOne(experience.dataset) for experience in memory.train_stream]
    joined = experiments_data._joined(parts)
    assert isinstance(joined, ConcatDataset)
    assert Stream("train", [joined])[0].classes_in_this_experience == (0, 1, 2, 3)


def test_a_users_network_runs_by_its_import_path():
    settings = {"model": "experiments.networks:plain", "model_options": {"width": 12}, "lr": 0.02}
    for heads in ("single", "masked", "growing"):
        result = run(small("rwalk", heads=heads, exemplars=2, **settings))
        assert result.matrix.tolist()[0][0] > 0.5
    wide = run(small("rwalk", **{**settings, "model_options": {"width": 6}}))
    assert wide.matrix.tolist() != run(small("rwalk", **settings)).matrix.tolist()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "experiments.networks:nobody"}, "has no 'nobody'"),
        ({"model": "no_such_module:net"}, "cannot import no_such_module"),
        ({"model": "mlp", "model_options": {"depth": 3}}, "model 'mlp' has no option 'depth'"),
        ({"model": "paper-cnn"}, "paper-cnn takes images"),
        ({"exemplars": 2, "sampler": "mean-of-features", "sampler_layer": "fc9"}, "the model has no layer 'fc9'"),
        ({"class_order": (0, 1)}, "class_order"),
        ({"sizes": (3, 3)}, "sizes"),
        ({"n_experiences": 11}, "n_experiences=11"),
    ],
)
def test_what_does_not_fit_the_data_is_refused_before_training(settings, message, monkeypatch):
    monkeypatch.setattr("rwalk.training.Naive.train", lambda *_, **__: pytest.fail("trained for nothing"))
    changes = {"n_experiences": None} if "sizes" in settings else {}
    with pytest.raises((ValueError, TypeError), match=r".") as caught:
        run(small(**changes, **settings))
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_text_needs_a_network_for_text(monkeypatch):
    ids = torch.randint(1, 50, (40, 6), generator=torch.Generator().manual_seed(0))
    words = TensorData(ids, torch.arange(40) % 4)
    experiments_data._built.cache_clear()
    monkeypatch.setattr(experiments_data, "benchmark", lambda name, **_: class_incremental(name, words, words, 2))
    spec = {"benchmark": "split-ag-news", "method": "rwalk", "exemplars": 2, "batch_size": 8}
    with pytest.raises(ValueError, match="model='mlp': split-ag-news holds token ids of texts; choose 'text-mlp'"):
        run(RunSpec(**spec))
    for heads in ("single", "growing"):
        assert run(RunSpec(**spec, model="text-mlp", heads=heads)).metrics["average_accuracy"] is not None
    experiments_data._built.cache_clear()


def test_only_the_first_experiences_are_learned_and_tested():
    whole = stream_of(RunSpec(benchmark="split-digits", method="rwalk", shuffle_classes=True, task_labels=True, seed=3))
    spec = RunSpec(
        benchmark="split-digits", method="rwalk", shuffle_classes=True, task_labels=True, seed=3, only_first=2
    )
    part = stream_of(spec)
    for name in ("train_stream", "test_stream"):
        all_of_it, beginning = getattr(whole, name), getattr(part, name)
        assert (len(all_of_it), len(beginning), part.n_classes) == (5, 2, 10)
        assert [e.classes for e in beginning] == [e.classes for e in all_of_it[:2]]
        assert [e.task_label for e in beginning] == [0, 1]
    assert run(spec.model_copy(update={"epochs": 1, "hidden": (4,)})).matrix.values.shape == (2, 2)


@pytest.mark.parametrize(
    ("benchmark", "count", "expected"), [("split-digits", 6, "1 to 5"), ("online-digits", 5, "20 to 100")]
)
def test_a_beginning_that_the_stream_does_not_have_is_refused(benchmark, count, expected):
    with pytest.raises(ValueError, match=f"only_first={count}: expected {expected}, as many as"):
        stream_of(RunSpec(benchmark=benchmark, method="rwalk", only_first=count))
