"""Metrics by name, and the accuracy matrix of each stream."""

import pytest
import torch
from torch import nn

from rwalk.streams import Stream
from rwalk.training import EvaluationPlugin
from training.toys import Recorder, naive, net, toy


def accuracy(model, dataset):
    model.eval()
    with torch.no_grad():
        right = (model(dataset.x).argmax(1) == dataset.targets).float().mean()
    model.train()
    return pytest.approx(float(right), abs=1e-6)


def loss(model, dataset):
    model.eval()
    with torch.no_grad():
        value = nn.functional.cross_entropy(model(dataset.x), dataset.targets)
    model.train()
    return pytest.approx(float(value), rel=1e-5)


def test_each_experience_and_the_stream_have_accuracy_and_loss_under_avalanches_names():
    benchmark, model = toy(), net(dropout=0.3)
    strategy = naive(model, eval_mb_size=5)
    strategy.train(benchmark.train_stream[0])
    metrics = strategy.eval(benchmark.test_stream)
    parts = [experience.dataset for experience in benchmark.test_stream]
    whole = torch.utils.data.ConcatDataset(parts)
    whole.x, whole.targets = (torch.cat([getattr(part, name) for part in parts]) for name in ("x", "targets"))
    assert metrics == {
        "Top1_Acc_Exp/eval_phase/test_stream/Task000/Exp000": accuracy(model, parts[0]),
        "Top1_Acc_Exp/eval_phase/test_stream/Task000/Exp001": accuracy(model, parts[1]),
        "Top1_Acc_Stream/eval_phase/test_stream": accuracy(model, whole),
        "Loss_Exp/eval_phase/test_stream/Task000/Exp000": loss(model, parts[0]),
        "Loss_Exp/eval_phase/test_stream/Task000/Exp001": loss(model, parts[1]),
        "Loss_Stream/eval_phase/test_stream": loss(model, whole),
    }
    assert metrics == strategy.evaluator.get_last_metrics()


def test_a_task_label_is_part_of_the_name():
    benchmark = toy()
    labelled = Stream("valid", [experience.dataset for experience in benchmark.test_stream], [4, 11])
    metrics = naive().eval(labelled)
    assert "Top1_Acc_Exp/eval_phase/valid_stream/Task011/Exp001" in metrics


def test_the_matrix_has_a_row_after_each_experience_and_the_untrained_one():
    benchmark, model = toy(), net()
    evaluator = EvaluationPlugin()
    strategy = naive(model, evaluator=evaluator, train_epochs=2)
    parts = [experience.dataset for experience in benchmark.test_stream]
    untrained = [accuracy(model, part) for part in parts]
    strategy.eval(benchmark.test_stream)
    rows = []
    for experience in benchmark.train_stream:
        strategy.train(experience)
        metrics = strategy.eval(benchmark.test_stream)
        rows.append([accuracy(model, part) for part in parts])
    matrix = evaluator.matrices["test"]
    assert matrix.tolist() == rows
    assert matrix.untrained.tolist() == untrained
    summary = matrix.summary()
    assert summary["forward_transfer"] is not None
    assert metrics["StreamForgetting/eval_phase/test_stream"] == summary["forgetting"]
    assert metrics["StreamBWT/eval_phase/test_stream"] == summary["backward_transfer"]


def test_forgetting_is_published_from_the_second_experience_on():
    benchmark, strategy = toy(), naive()
    strategy.train(benchmark.train_stream[0])
    assert not [name for name in strategy.eval(benchmark.test_stream) if "Forgetting" in name or "BWT" in name]
    strategy.train(benchmark.train_stream[1])
    metrics = strategy.eval(benchmark.test_stream)
    assert {"StreamForgetting/eval_phase/test_stream", "StreamBWT/eval_phase/test_stream"} <= set(metrics)


def test_one_call_with_evaluation_between_experiences_fills_the_whole_matrix():
    benchmark, strategy = toy(), naive(eval_every=0)
    strategy.train(benchmark.train_stream, [benchmark.test_stream])
    matrix = strategy.evaluator.matrices["test"]
    assert matrix.learned == 2
    assert not matrix.values.isnan().any()
    assert matrix.untrained is not None


@pytest.mark.parametrize("last", [1, 2])
def test_an_evaluation_in_the_middle_of_an_experience_is_no_row_and_one_of_its_last_weights_is(last):
    class Evaluate(Recorder):
        def after_training_iteration(self, strategy, **kwargs):
            if strategy.clock.train_exp_iterations <= last:
                self.metrics = strategy.eval(benchmark.test_stream)

    benchmark, plugin = toy(), Evaluate()
    strategy = naive(plugins=[plugin])
    strategy.train(benchmark.train_stream[0])  # three iterations
    assert "Top1_Acc_Stream/eval_phase/test_stream" in strategy.evaluator.get_last_metrics()
    if last == 1:
        assert strategy.evaluator.matrices == {}
    else:
        measured = [plugin.metrics[f"Top1_Acc_Exp/eval_phase/test_stream/Task000/Exp00{j}"] for j in range(2)]
        assert strategy.evaluator.matrices["test"].tolist()[0] == measured


def test_part_of_a_stream_fills_its_part_of_a_row():
    benchmark, strategy = toy(), naive()
    strategy.train(benchmark.train_stream[0])
    second = strategy.eval(benchmark.test_stream[1])["Top1_Acc_Stream/eval_phase/test_stream"]
    assert strategy.evaluator.matrices["test"].tolist()[0] == [None, second]
    first = strategy.eval(benchmark.test_stream[:1])["Top1_Acc_Stream/eval_phase/test_stream"]
    assert strategy.evaluator.matrices["test"].tolist()[0] == [first, second]


def test_streams_have_matrices_of_their_own():
    benchmark, strategy = toy(), naive()
    strategy.train(benchmark.train_stream[0])
    for stream in (benchmark.train_stream, benchmark.test_stream):
        strategy.eval(stream)
    assert set(strategy.evaluator.matrices) == {"train", "test"}


def test_training_metrics_are_the_means_of_an_epochs_batches():
    def note(strategy):
        return float((strategy.mb_output.argmax(1) == strategy.mb_y).float().mean()), float(strategy.loss.detach())

    benchmark, recorder = toy(), Recorder(note, "after_training_iteration")
    strategy = naive(evaluator=EvaluationPlugin(track_training=True), plugins=[recorder], train_epochs=2)
    metrics = strategy.train(benchmark.train_stream[0])
    last = recorder.notes("after_training_iteration")[-3:]  # batches of equal size
    accuracies, losses = zip(*last, strict=True)
    assert metrics == {
        "Top1_Acc_Epoch/train_phase/train_stream": pytest.approx(sum(accuracies) / 3),
        "Loss_Epoch/train_phase/train_stream": pytest.approx(sum(losses) / 3),
    }
    assert naive().train(benchmark.train_stream[0]) == {}


def test_evaluating_on_nothing_is_no_row():
    strategy = naive()
    assert strategy.eval([]) == {}
    assert strategy.evaluator.matrices == {}
