"""The accuracy matrix of a task-free stream is filled at its milestones."""

import pytest

from rwalk.streams import online
from training.toys import naive, net, toy


@pytest.mark.parametrize("samples", [4, 7, 40])
def test_a_row_is_what_was_measured_when_its_experience_had_arrived(samples):
    stream = online(toy(experiences=2, per_class=10), samples)
    strategy = naive(net())
    measured = []
    strategy.eval(stream.test_stream)
    for experience in stream.train_stream:
        strategy.train(experience)
        metrics = strategy.eval(stream.test_stream)
        names = [f"Top1_Acc_Exp/eval_phase/test_stream/Task000/Exp{index:03d}" for index in range(2)]
        measured.append([metrics[name] for name in names])
    matrix = strategy.evaluator.matrices["test"]
    assert matrix.tolist() == [measured[end - 1] for end in stream.test_stream.milestones]
    assert matrix.learned == 2
