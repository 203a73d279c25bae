"""One head for each task, against a loop over single samples."""

import pickle
from copy import deepcopy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.utils.data import ConcatDataset, TensorDataset

from models.arriving import answers_one_by_one, experience, features, loss_over
from reference.problems import assert_same, weights
from rwalk.models import MultiHeadClassifier, MultiTaskNetwork, attach_head
from rwalk.streams import Stream, TensorData

TASKS = {0: [0, 3], 1: [1, 2, 5], 7: [4]}


def grown(**options) -> MultiHeadClassifier:
    torch.manual_seed(0)
    head = MultiHeadClassifier(3, **options)
    for task, classes in TASKS.items():
        head.adaptation(experience(*classes, task=task))
    return head


def parts(head: MultiHeadClassifier) -> dict[int, tuple[nn.Linear, list[int]]]:
    return {task: (head.classifiers[str(task)], classes) for task, classes in TASKS.items()}


@given(st.lists(st.sampled_from([*TASKS]), min_size=1, max_size=12), st.sampled_from([None, 6, 9]))
def test_each_sample_is_answered_by_the_head_of_its_own_task(tasks, n_classes):
    head, labels = grown(n_classes=n_classes), torch.tensor(tasks)
    x = features(len(tasks), 3)
    scores = head(x, labels)
    assert scores.shape == (len(tasks), n_classes or 6)
    assert scores.argmax(dim=1).tolist() == answers_one_by_one(parts(head), x, labels)
    for row, inputs, task in zip(scores, x, tasks, strict=True):
        linear, classes = parts(head)[task]
        torch.testing.assert_close(row[classes], linear(inputs))
        rest = [label for label in range(len(row)) if label not in classes]
        assert bool((row[rest] == torch.finfo(row.dtype).min).all())


@given(st.lists(st.tuples(st.sampled_from([*TASKS]), st.integers(0, 5)), min_size=1, max_size=12))
def test_loss_and_gradients_are_those_within_each_task(samples):
    tasks = torch.tensor([task for task, _ in samples])
    labels = torch.tensor([TASKS[task][pick % len(TASKS[task])] for task, pick in samples])
    head = grown()
    x = features(len(samples), 3).requires_grad_()
    F.cross_entropy(head(x, tasks), labels, reduction="sum").backward()
    twin = grown()
    x_twin = x.detach().clone().requires_grad_()
    total = torch.zeros(())
    for row, label, task in zip(x_twin, labels, tasks.tolist(), strict=True):
        linear, classes = parts(twin)[task]
        spread = torch.zeros(1, 6).index_copy(1, torch.tensor(classes), linear(row)[None])
        total = total + loss_over(spread, label[None], classes)
    total.backward()
    torch.testing.assert_close(x.grad, x_twin.grad)
    for (name, mine), (_, theirs) in zip(head.named_parameters(), twin.named_parameters(), strict=True):
        assert (mine.grad is None) == (theirs.grad is None), name
        if mine.grad is not None:
            torch.testing.assert_close(mine.grad, theirs.grad)


def test_heads_of_other_tasks_have_no_gradient_at_all():
    head = grown()
    head(features(4, 3), torch.tensor([1, 1, 1, 1])).logsumexp(1).sum().backward()
    with_gradient = {name for name, parameter in head.named_parameters() if parameter.grad is not None}
    assert with_gradient == {"classifiers.1.weight", "classifiers.1.bias"}


def test_one_label_for_all_is_the_same_as_one_each():
    head, x = grown(), features(4, 3)
    assert torch.equal(head(x, 1), head(x, torch.tensor([1, 1, 1, 1])))


def test_a_known_task_that_brings_more_classes_gets_more_rows():
    head, x = grown(), features(5, 3)
    before, old = weights(head), head(x, 0)
    head.adaptation(experience(3, 8, task=0))
    assert head.classifiers["0"].classes.tolist() == [0, 3, 8]
    assert torch.equal(head(x, 0)[:, :6], old)
    assert head(x, 0).shape == (5, 9)
    for name, value in before.items():
        assert torch.equal(weights(head)[name][: len(value)], value)
    head.adaptation(experience(0, 8, task=0))
    assert head.classifiers["0"].classes.tolist() == [0, 3, 8]


def test_evaluating_a_task_before_it_is_learned_makes_no_head_and_scores_its_classes_equally():
    head = grown()
    before, random = weights(head), torch.get_rng_state()
    head.eval().adaptation(experience(9, 6, task=3))
    scores = head(features(4, 3), torch.tensor([3, 3, 0, 3]))
    assert torch.equal(torch.get_rng_state(), random)
    assert_same(weights(head), before)
    assert scores.shape == (4, 10)
    torch.testing.assert_close(scores[0].softmax(0)[[6, 9]], torch.tensor([0.5, 0.5]))
    assert scores[2].argmax() in TASKS[0]
    with pytest.raises(ValueError, match=r"no head for task 3 \(there are heads for: 0, 1, 7\)"):
        head.train()(features(1, 3), 3)


def test_a_task_that_never_arrived_is_named():
    with pytest.raises(ValueError, match=r"no head for task 0 \(there are heads for: none\): call adaptation"):
        MultiHeadClassifier(3)(features(1, 3), 0)


def test_a_class_beyond_the_outputs_is_named_before_a_head_is_made():
    head = MultiHeadClassifier(3, n_classes=4)
    with pytest.raises(ValueError, match="class 5, but the output layer has 4 outputs: build it with n_classes=6"):
        head.adaptation(experience(0, 5))
    assert not list(head.parameters())


def test_task_labels_must_be_there_and_one_for_each_sample():
    head = grown()
    with pytest.raises(ValueError, match=r"MultiHeadClassifier got no task labels: call it as model\(x, task_labels\)"):
        head(features(2, 3))
    with pytest.raises(ValueError, match=r"one task label for each of 2 samples, found shape \(3,\)"):
        head(features(2, 3), torch.tensor([0, 0, 0]))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_new_heads_follow_dtype(dtype):
    head = MultiHeadClassifier(3).to(dtype)
    head.adaptation(experience(0, 1))
    assert {parameter.dtype for parameter in head.parameters()} == {dtype}
    assert head(features(2, 3).to(dtype), 0).dtype is dtype


def test_a_state_dict_brings_heads_and_rows_to_a_fresh_network():
    network = attach_head(nn.Flatten(), grown())
    network.classifier.adaptation(experience(8, task=0))
    twin = attach_head(nn.Flatten(), MultiHeadClassifier(3))
    twin.classifier.adaptation(experience(0, 3))
    random = torch.get_rng_state()
    twin.load_state_dict(network.state_dict())
    assert torch.equal(torch.get_rng_state(), random)
    x, tasks = features(6, 3), torch.tensor([0, 7, 1, 1, 0, 7])
    assert torch.equal(twin(x, tasks), network(x, tasks))
    assert twin(x, tasks).shape == (6, 9)


def test_copies_and_pickles_answer_alike_and_grow_apart():
    head, x = grown(), features(2, 3)
    for twin in (deepcopy(head), pickle.loads(pickle.dumps(head))):
        assert torch.equal(twin(x, 7), head(x, 7))
        twin.adaptation(experience(8, task=2))
        assert "2" not in head.classifiers


def test_features_are_made_once_for_all_tasks():
    calls = []
    body = nn.Linear(3, 3)
    body.register_forward_hook(lambda module, args, output: calls.append(len(output)))
    network = MultiTaskNetwork(body, grown())
    network(features(5, 3), torch.tensor([0, 7, 1, 1, 0]))
    assert calls == [5]


def test_the_row_of_each_class_is_found_under_its_label():
    head = grown()
    for linear, classes in parts(head).values():
        assert torch.equal(head.weight[classes], linear.weight)


@pytest.mark.parametrize("wrap", [lambda data: data, lambda data: ConcatDataset([data, data])])
def test_data_of_several_tasks_tells_them_apart(wrap):
    data = TensorData(torch.zeros(4, 3), torch.tensor([0, 1, 5, 1]), torch.tensor([0, 0, 1, 1]))
    head = MultiHeadClassifier(3)
    head.adaptation(Stream("train", [wrap(data)])[0])
    assert {task: part.classes.tolist() for task, part in head.classifiers.items()} == {"0": [0, 1], "1": [1, 5]}


def test_data_that_says_nothing_of_tasks_belongs_to_the_experiences_one():
    data = TensorDataset(torch.zeros(3, 3), torch.tensor([4, 2, 2]))
    head = MultiHeadClassifier(3)
    head.adaptation(Stream("train", [data], [6])[0])
    assert head.classifiers["6"].classes.tolist() == [2, 4]
    both = experience(0, 1)
    both.task_labels, both.dataset = [0, 1], data
    with pytest.raises(ValueError, match=r"tasks \[0, 1\], and its data \(TensorDataset\) does not say which"):
        head.adaptation(both)
