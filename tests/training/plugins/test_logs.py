"""What is written to the log."""

import logging

import pytest

from rwalk.training import LoggingPlugin
from training.toys import Recorder, naive, toy


def test_each_epoch_and_each_evaluated_experience_has_a_line(caplog):
    benchmark = toy()
    losses = Recorder(lambda strategy: float(strategy.loss.detach()), "after_training_iteration")
    strategy = naive(plugins=[losses, LoggingPlugin()], train_epochs=2)
    with caplog.at_level(logging.INFO, "rwalk"):
        strategy.train(benchmark.train_stream[1])
        metrics = strategy.eval(benchmark.test_stream)
    noted = losses.notes("after_training_iteration")
    means = [sum(noted[:3]) / 3, sum(noted[3:]) / 3]
    accuracies = [metrics[f"Top1_Acc_Exp/eval_phase/test_stream/Task000/Exp00{index}"] for index in range(2)]
    assert [record.getMessage() for record in caplog.records] == [
        f"experience 1, epoch 1/2: loss {means[0]:.4f} over 3 iterations",
        f"experience 1, epoch 2/2: loss {means[1]:.4f} over 3 iterations",
        f"test experience 0: accuracy {accuracies[0]:.4f}",
        f"test experience 1: accuracy {accuracies[1]:.4f}",
    ]


def test_a_later_evaluation_is_logged_with_its_own_accuracy(caplog):
    benchmark = toy()
    strategy = naive(plugins=[LoggingPlugin()])
    key = "Top1_Acc_Exp/eval_phase/test_stream/Task000/Exp000"
    untrained = strategy.eval(benchmark.test_stream[0])[key]
    strategy.train(benchmark.train_stream[0])
    caplog.clear()
    with caplog.at_level(logging.INFO, "rwalk"):
        trained = strategy.eval(benchmark.test_stream[0])[key]
    assert trained != untrained
    assert caplog.messages == [f"test experience 0: accuracy {trained:.4f}"]


@pytest.mark.parametrize("level", [logging.DEBUG, logging.WARNING])
def test_logger_and_level_can_be_chosen(caplog, level):
    mine = logging.getLogger("mine")
    with caplog.at_level(logging.DEBUG, "mine"):
        naive(plugins=[LoggingPlugin(mine, level)]).train(toy().train_stream[0])
    assert {(record.name, record.levelno) for record in caplog.records} == {("mine", level)}
