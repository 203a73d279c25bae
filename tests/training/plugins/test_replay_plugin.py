"""Replay in training: what each batch holds."""

import pytest
import torch

from rwalk.streams import Stream
from rwalk.training import ReplayPlugin
from training.toys import Recorder, blobs, naive, net, toy


def batches(plugin, experiences=2, size=4, **options):
    """Labels of every training batch, by experience."""
    recorder = Recorder(lambda strategy: (strategy.experience.current_experience, strategy.mb_y), "before_forward")
    torch.manual_seed(0)
    strategy = naive(plugins=[plugin, recorder], train_mb_size=size, **options)
    strategy.train(toy(experiences).train_stream)
    found = [[] for _ in range(experiences)]
    for index, labels in recorder.notes("before_forward"):
        found[index].append(labels.tolist())
    return found


def test_the_first_experience_is_learned_alone():
    first, _ = batches(ReplayPlugin(per_class=2))
    assert [len(labels) for labels in first] == [4, 4, 4]
    assert {label for labels in first for label in labels} == {0, 1}


@pytest.mark.parametrize(("settings", "old"), [({}, 4), ({"batch_size_mem": 3}, 3), ({"batch_size_mem": 9}, 9)])
def test_later_batches_hold_as_many_old_samples_as_new_ones_or_as_asked_for(settings, old):
    _, second = batches(ReplayPlugin(per_class=2, **settings))
    for labels in second:
        assert len(labels) == 4 + old
        assert sum(label < 2 for label in labels) == old


def test_balanced_batches_hold_as_many_of_an_old_class_as_of_a_new_one():
    rounds = batches(ReplayPlugin(per_class=2, batch_size_mem="balanced"), experiences=4)  # a class each
    for old, labels in ((old, labels) for old, found in enumerate(rounds) for labels in found):
        assert sum(label < old for label in labels) == 4 * old
        assert sum(label == old for label in labels) == len(labels) - 4 * old > 0


def test_classes_that_come_again_are_balanced_without_exemplars():
    recorder = Recorder(lambda strategy: len(strategy.mb_y), "before_forward")
    again = Stream("train", [blobs(), blobs()])
    naive(plugins=[ReplayPlugin(per_class=1, batch_size_mem="balanced"), recorder]).train(again)
    assert recorder.notes("before_forward") == [4] * 12


def test_the_whole_of_the_new_data_is_seen_once_an_epoch():
    recorder = Recorder(lambda strategy: strategy.mb_x, "before_forward")
    benchmark = toy()
    naive(plugins=[ReplayPlugin(per_class=1), recorder]).train(benchmark.train_stream)
    new = torch.cat([x[:4] for x in recorder.notes("before_forward")[3:]])
    data = benchmark.train_stream[1].dataset
    assert sorted(new.tolist()) == sorted(data.x.tolist())


def test_exemplars_are_samples_of_past_experiences_within_the_budget():
    benchmark, plugin = toy(experiences=4), ReplayPlugin(per_class=2)
    strategy = naive(plugins=[plugin])
    for count, experience in enumerate(benchmark.train_stream, start=1):
        strategy.train(experience)
        assert plugin.memory.counts == dict.fromkeys(range(count), 2)
    known = {tuple(x.tolist()): int(y) for x, y, _ in blobs()}
    for x, y, _ in plugin.memory.samples:
        assert known[tuple(x.tolist())] == int(y)


def test_a_budget_in_all_is_shared_out():
    plugin = ReplayPlugin(mem_size=6)
    batches(plugin)
    assert plugin.memory.counts == {0: 2, 1: 2, 2: 1, 3: 1}


def test_the_memory_does_not_change_while_an_experience_is_learned():
    plugin = ReplayPlugin(per_class=2)

    class Look(Recorder):
        def after_training_iteration(self, strategy, **kwargs):
            self.events.append(("labels", sorted(plugin.memory.counts)))

    look = Look()
    naive(plugins=[plugin, look]).train(toy().train_stream)
    assert look.notes("labels") == [[]] * 3 + [[0, 1]] * 3


def test_evaluation_sees_no_exemplars():
    benchmark, recorder = toy(), Recorder(lambda strategy: strategy.mb_y.tolist(), "before_eval_forward")
    strategy = naive(plugins=[ReplayPlugin(per_class=2), recorder], eval_mb_size=100)
    strategy.train(benchmark.train_stream)
    strategy.eval(benchmark.test_stream[1])
    assert [set(labels) for labels in recorder.notes("before_eval_forward")] == [{2, 3}]


def test_exemplars_keep_their_task_label():
    data = [experience.dataset.with_task_label(5 + index) for index, experience in enumerate(toy().train_stream)]
    recorder = Recorder(lambda strategy: strategy.mb_task_id.tolist(), "before_forward")
    naive(plugins=[ReplayPlugin(per_class=2), recorder]).train(Stream("train", data, [5, 6]))
    assert recorder.notes("before_forward")[-1] == [6, 6, 6, 6, 5, 5, 5, 5]


def test_any_dataset_can_be_replayed():
    pairs = [
        torch.utils.data.TensorDataset(experience.dataset.x, experience.dataset.targets)
        for experience in toy().train_stream
    ]
    recorder = Recorder(lambda strategy: (strategy.mb_y.tolist(), strategy.mb_task_id.tolist()), "before_forward")
    naive(plugins=[ReplayPlugin(per_class=2), recorder]).train(Stream("train", pairs, [5, 6]))
    for labels, tasks in recorder.notes("before_forward")[3:]:
        assert sum(label < 2 for label in labels) == 4
        assert tasks == [6, 6, 6, 6, 5, 5, 5, 5]


def test_a_budget_and_a_share_start_at_1():
    for size in (0, True, "even", 1.5):
        with pytest.raises(ValueError, match=f"batch_size_mem={size!r}: expected at least 1"):
            ReplayPlugin(per_class=1, batch_size_mem=size)
    with pytest.raises(ValueError, match="exactly one of the two budgets"):
        ReplayPlugin()
    with pytest.raises(ValueError, match="total=0: expected at least 1 exemplar"):
        ReplayPlugin(mem_size=0)


def test_replay_remembers_what_fine_tuning_forgets():
    results = []
    for plugins in ([], [ReplayPlugin(per_class=3)]):
        benchmark, model = toy(per_class=20), net()
        torch.manual_seed(0)
        strategy = naive(model, plugins=plugins, train_epochs=5, train_mb_size=8)
        strategy.train(benchmark.train_stream)
        name = "Top1_Acc_Exp/eval_phase/test_stream/Task000/Exp000"
        results.append(strategy.eval(benchmark.test_stream)[name])
    assert results[1] > results[0] + 0.2
