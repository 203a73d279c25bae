"""The template around models that change: when they adapt, what they are told, and what goes on as it was."""

from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import StepLR

from models.arriving import answers_one_by_one
from reference.problems import assert_same, weights
from rwalk.models import (
    DynamicModule,
    IncrementalClassifier,
    MaskedClassifier,
    MultiHeadClassifier,
    MultiTaskModule,
    attach_head,
    build_model,
)
from rwalk.replay import Entropy, MeanOfFeatures, PlaneDistance
from rwalk.streams import Benchmark, Stream, TensorData, class_incremental
from rwalk.training import LRSchedulerPlugin, ReplayPlugin, RWalkPlugin
from training.toys import Recorder, blobs, naive, sgd

ORDER = [2, 0, 3, 1]


def tasks(task_labels=True, experiences=2) -> Benchmark:
    data = blobs(per_class=20), blobs(per_class=10, seed=1)
    return class_incremental("toy", *data, experiences, class_order=ORDER, task_labels=task_labels)


class Inside(nn.Module):
    """A user's model that holds a head somewhere and knows nothing of tasks."""

    def __init__(self, body, head):
        super().__init__()
        self.trunk = nn.ModuleDict({"body": body})
        self.output = nn.ModuleList([head])

    def forward(self, x):
        return self.output[0](self.trunk["body"](x))


SHAPES = {"attached": attach_head, "sequential": nn.Sequential, "user's own": Inside}
HEADS = {
    "masked": lambda: MaskedClassifier(8, 4),
    "growing": lambda: IncrementalClassifier(8),
    "multi": lambda: MultiHeadClassifier(8, n_classes=4),
}


def network(shape: str = "attached", head: str = "multi") -> nn.Module:
    torch.manual_seed(0)
    return SHAPES[shape](nn.Sequential(nn.Linear(4, 8), nn.Tanh()), HEADS[head]())


def head_of(model: nn.Module) -> nn.Module:
    return next(m for m in model.modules() if isinstance(m, (MaskedClassifier, MultiHeadClassifier)))


@pytest.mark.parametrize("head", HEADS)
def test_how_a_model_is_built_makes_no_difference(head):
    ends = []
    for shape in SHAPES:
        benchmark, model = tasks(), network(shape, head)
        strategy = naive(model, plugins=[RWalkPlugin(ewc_lambda=1.0), ReplayPlugin(per_class=2)], train_epochs=2)
        torch.manual_seed(1)
        for experience in benchmark.train_stream:
            strategy.train(experience)
            strategy.eval(benchmark.test_stream)
        ends.append((strategy.evaluator.matrices["test"].tolist(), [p.detach() for p in model.parameters()]))
    for one, other in pairwise(ends):
        assert one[0] == other[0]
        assert all(torch.equal(a, b) for a, b in zip(one[1], other[1], strict=True))


def test_multi_head_accuracy_is_that_within_the_tasks_classes():
    benchmark, model = tasks(), network()
    strategy = naive(model, train_epochs=6)
    strategy.train(benchmark.train_stream)
    metrics = strategy.eval(benchmark.test_stream)
    head, body = head_of(model), model.features
    for experience in benchmark.test_stream:
        data, task = experience.dataset, experience.task_label
        linear = head.classifiers[str(task)]
        heads = {task: (linear, sorted(experience.classes_in_this_experience))}
        answers = answers_one_by_one(heads, body(data.x), data.task_labels)
        right = sum(answer == label for answer, label in zip(answers, data.targets.tolist(), strict=True))
        name = f"Top1_Acc_Exp/eval_phase/test_stream/Task{task:03d}/Exp{task:03d}"
        assert metrics[name] == pytest.approx(right / len(data))
        assert metrics[name] > 0.5


def test_replay_brings_batches_of_several_tasks_and_only_their_heads_learn():
    benchmark, model = tasks(experiences=4), network()
    seen = []

    class Look(Recorder):
        def after_backward(self, strategy, **kwargs):
            heads = head_of(strategy.model).classifiers
            with_gradient = {int(task) for task, head in heads.items() if head.weight.grad is not None}
            seen.append((strategy.experience.current_experience, with_gradient, set(strategy.mb_task_id.tolist())))

    naive(model, plugins=[ReplayPlugin(per_class=3, batch_size_mem=1), Look()]).train(benchmark.train_stream)
    assert all(learning == present for _, learning, present in seen)
    assert {index for index, _, present in seen if len(present) == 2} == {1, 2, 3}


@pytest.mark.parametrize("head", HEADS)
def test_the_whole_stream_can_be_measured_before_anything_is_learned_and_that_changes_nothing(head):
    benchmark, model = tasks(), network(head=head)
    strategy = naive(model)
    before, random = weights(model), torch.get_rng_state()
    metrics = strategy.eval(benchmark.test_stream)
    assert torch.equal(torch.get_rng_state(), random)
    assert_same(weights(model), before)
    assert 0.0 <= metrics["Top1_Acc_Stream/eval_phase/test_stream"] <= 1.0
    assert len(strategy.optimizer.param_groups[0]["params"]) == len(before)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(("every", "mode"), [(0, "epoch"), (1, "iteration")])
def test_training_learns_the_same_with_and_without_evaluation_inside(head, every, mode):
    ends = []
    for eval_every in (-1, every):
        benchmark, model = tasks(), network(head=head)
        torch.manual_seed(1)
        strategy = naive(model, plugins=[RWalkPlugin(ewc_lambda=1.0)], eval_every=eval_every, peval_mode=mode)
        strategy.train(benchmark.train_stream, [benchmark.test_stream])
        ends.append(model.state_dict())
    assert_same(*ends)


def test_models_adapt_after_the_data_is_there_and_before_the_experiences_first_hook():
    moments = []

    class Notes(DynamicModule):
        def adaptation(self, experience):
            moments.append((experience.origin_stream.name, experience.current_experience, self.training))

        def forward(self, x):
            return x

    class Order(Recorder):
        def after_train_dataset_adaptation(self, strategy, **kwargs):
            moments.append("data")

        def before_training_exp(self, strategy, **kwargs):
            moments.append("hook")

        def before_eval_exp(self, strategy, **kwargs):
            moments.append("hook")

    benchmark = tasks()
    model = nn.Sequential(nn.Linear(4, 4), Notes())
    strategy = naive(model, plugins=[Order()])
    strategy.train(benchmark.train_stream)
    strategy.eval(benchmark.test_stream[1])
    assert moments == [
        *("data", ("train", 0, True), "hook"),
        *("data", ("train", 1, True), "hook"),
        *(("test", 1, False), "hook"),
    ]


def test_models_that_take_labels_get_those_of_each_batch():
    got = []

    class Takes(MultiTaskModule):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x, task_labels=None):
            got.append(task_labels)
            return self.layer(x)

    recorder = Recorder(lambda strategy: strategy.mb_task_id, "after_forward")
    naive(Takes(), plugins=[recorder]).train(tasks().train_stream)
    assert all(a is b for a, b in zip(got, recorder.notes("after_forward"), strict=True))
    assert set(torch.cat(got).tolist()) == {0, 1}


def test_a_model_put_in_place_of_another_is_called_as_it_wants():
    benchmark = tasks()
    strategy = naive(network(head="masked"))
    strategy.train(benchmark.train_stream[0])
    strategy.model = network(head="multi")
    strategy.optimizer = sgd(strategy.model)
    strategy.train(benchmark.train_stream)
    assert set(head_of(strategy.model).classifiers) == {"0", "1"}


def test_a_masked_head_is_trained_and_measured_on_the_classes_seen_only():
    benchmark, model = tasks(task_labels=False), network(head="masked")
    answers = Recorder(lambda strategy: strategy.mb_output.argmax(dim=1), "after_eval_forward")
    strategy = naive(model, plugins=[answers], train_epochs=3)
    unseen = model.classifier.classifier.weight[[1, 3]].detach().clone()
    strategy.train(benchmark.train_stream[0])
    strategy.eval(benchmark.test_stream)
    assert set(torch.cat(answers.notes("after_eval_forward")).tolist()) <= {0, 2}
    assert torch.equal(model.classifier.classifier.weight[[1, 3]], unseen)


def test_schedulers_go_on_when_the_model_grows():
    benchmark, model = tasks(), network(head="growing")
    optimizer = sgd(model, lr=0.1)
    rates = Recorder(lambda strategy: strategy.optimizer.param_groups[0]["lr"], "before_update")
    scheduler = LRSchedulerPlugin(StepLR(optimizer, 1, 0.5), reset_scheduler=False)
    naive(model, optimizer=optimizer, plugins=[scheduler, rates], train_epochs=2, train_mb_size=100).train(
        benchmark.train_stream
    )
    assert rates.notes("before_update") == [0.1, 0.05, 0.025, 0.0125]
    assert all(p in optimizer.state for p in model.parameters())


def test_a_stream_of_small_experiences_without_tasks():
    data = blobs(per_class=8)
    parts = [data.subset(torch.arange(start, start + 4)) for start in range(0, 32, 4)]
    for heads in ("single", "masked", "growing", "multi"):
        strategy = naive(build_model("mlp", (4,), 4, heads, hidden=(8,)))
        strategy.train(Stream("train", parts))
        assert strategy.eval(Stream("test", [data]))["Top1_Acc_Stream/eval_phase/test_stream"] > 0.25


def test_data_of_several_tasks_in_one_experience_trains_all_their_heads():
    train = tasks().train_stream
    columns = zip(*(experience.dataset.batch(slice(None)) for experience in train), strict=True)
    model = network()
    naive(model, train_mb_size=16, train_epochs=4).train(Stream("joint", [TensorData(*map(torch.cat, columns))]))
    heads = head_of(model).classifiers
    assert {task: head.classes.tolist() for task, head in heads.items()} == {"0": [0, 2], "1": [1, 3]}


def test_a_class_beyond_the_head_is_named_before_any_update():
    model = attach_head(nn.Linear(4, 8), MaskedClassifier(8, 3))
    before = weights(model)
    with pytest.raises(ValueError, match=r"class 3, but the output layer has 3 outputs \(classes 0 to 2\)"):
        naive(model).train(tasks(task_labels=False).train_stream[1])
    assert_same(weights(model), before)


@pytest.mark.parametrize("sampler", [PlaneDistance, MeanOfFeatures, Entropy])
@pytest.mark.parametrize("head", HEADS)
def test_exemplars_are_chosen_by_what_the_head_of_their_class_says(sampler, head):
    benchmark, model = tasks(experiences=4), network(head=head)
    options = {} if sampler is Entropy or head != "multi" else {"classifier": "classifier"}
    plugin = ReplayPlugin(per_class=2, sampler=sampler(**options))
    strategy = naive(model, plugins=[plugin])
    strategy.train([*benchmark.train_stream, benchmark.train_stream[0]])
    assert plugin.memory.counts == dict.fromkeys(range(4), 2)
