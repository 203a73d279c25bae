"""Metrics of torchmetrics in an evaluation: over all samples, a matrix each, forgetting in their direction."""

import copy

import pytest
import torch
from torch import nn

from rwalk.streams import Stream
from rwalk.training import EvaluationPlugin
from training.test_any_task import MULTI, SOFT, TAGS, TOKENS, WIDTH, Items, Sequences, X, learn, values
from training.toys import naive, net, toy

torchmetrics = pytest.importorskip("torchmetrics")
pytestmark = pytest.mark.filterwarnings("ignore")  # torchmetrics uses what torch deprecates


def of_stream(metrics, name, stream="test"):
    return metrics[f"{name}_Stream/eval_phase/{stream}_stream"]


@pytest.mark.parametrize("metrics", [["F1Score"], {"F1Score": torchmetrics.F1Score("multiclass", num_classes=4)}])
def test_by_name_or_as_an_object_over_all_samples_and_in_the_matrix(metrics):
    benchmark, model = toy(), net()
    strategy = naive(model, evaluator=EvaluationPlugin(metrics=metrics, track_training=True), eval_mb_size=5)
    for experience in benchmark.train_stream:
        assert 0 <= strategy.train(experience)["F1Score_Epoch/train_phase/train_stream"] <= 1
        found = strategy.eval(benchmark.test_stream)
    parts = [experience.dataset for experience in benchmark.test_stream]
    scores = torch.cat([model(part.x) for part in parts])
    expected = torchmetrics.F1Score("multiclass", num_classes=4)(scores, torch.cat([part.targets for part in parts]))
    assert of_stream(found, "F1Score") == pytest.approx(float(expected))
    table = strategy.evaluator.tables["F1Score", "test"]
    assert table.higher_is_better is True
    assert table.tolist()[1][0] == found["F1Score_Exp/eval_phase/test_stream/Task000/Exp000"]
    assert found["StreamForgetting_F1Score/eval_phase/test_stream"] == table.summary()["forgetting"]
    loss = strategy.evaluator.tables["Loss", "test"]
    rows = loss.tolist()
    assert found["StreamForgetting_Loss/eval_phase/test_stream"] == pytest.approx(rows[1][0] - rows[0][0])


@pytest.mark.parametrize(
    ("name", "y", "outputs", "criterion", "by_hand"),
    [
        ("MeanAbsoluteError", values(1, seed=1), 1, nn.MSELoss(), lambda out, y: (out - y).abs().mean()),
        ("MultilabelAccuracy", MULTI, WIDTH, nn.BCEWithLogitsLoss(), lambda out, y: ((out > 0) == y).float().mean()),
        ("F1Score", MULTI, WIDTH, nn.BCEWithLogitsLoss(), None),
        ("KLDivergence", SOFT, 3, nn.CrossEntropyLoss(), None),
    ],
)
def test_regression_and_several_labels_have_metrics_of_their_own(name, y, outputs, criterion, by_hand):
    model = nn.Linear(WIDTH, outputs)
    if name == "KLDivergence":
        model = nn.Sequential(model, nn.Softmax(1))
    evaluator = EvaluationPlugin(metrics=[name])
    metrics, strategy = learn(lambda i: (X[i], y[i]), model, criterion, evaluator=evaluator)
    assert set(metrics) == {"Loss", name}
    if by_hand is not None:
        with torch.no_grad():
            assert metrics[name] == pytest.approx(float(by_hand(model(X), y)), rel=1e-5)
    table = strategy.evaluator.tables[name, "test"]
    assert table.higher_is_better is {"MeanAbsoluteError": False, "KLDivergence": False}.get(name, True)


def test_what_does_not_count_is_not_shown_to_them():
    model = Sequences()
    evaluator = EvaluationPlugin(metrics={"Micro": torchmetrics.Accuracy("multiclass", num_classes=3, average="micro")})
    metrics, _ = learn(lambda i: (TOKENS[i], TAGS[i]), model, nn.CrossEntropyLoss(), evaluator=evaluator)
    assert metrics["Micro"] == pytest.approx(metrics["Top1_Acc"])


def test_the_metric_that_was_given_is_a_pattern_only():
    given = torchmetrics.MeanSquaredError()
    evaluator = EvaluationPlugin(metrics=[given])
    learn(lambda i: (X[i], X[i, :1]), nn.Linear(WIDTH, 1), nn.MSELoss(), evaluator=evaluator)
    assert given.total == 0


def test_an_evaluator_with_metrics_can_be_copied_and_goes_on_from_a_state():
    benchmark = toy()
    strategy = naive(evaluator=EvaluationPlugin(metrics=["F1Score"]))
    strategy.train(benchmark.train_stream[0])
    strategy.eval(benchmark.test_stream)
    other = EvaluationPlugin(metrics=["F1Score"])
    other.load_state_dict(strategy.evaluator.state_dict())
    for evaluator in (copy.deepcopy(strategy.evaluator), other):
        assert evaluator.get_last_metrics() == strategy.evaluator.get_last_metrics()
        assert evaluator.tables["F1Score", "test"].tolist() == strategy.evaluator.tables["F1Score", "test"].tolist()


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        (["F1score"], "torchmetrics has no metric 'F1score'; did you mean 'F1Score'"),
        (["Loss"], "metric name 'Loss' is taken"),
        ([torchmetrics.MeanMetric(), torchmetrics.MeanMetric()], "metric name 'MeanMetric' is taken"),
    ],
)
def test_names_that_cannot_be_are_refused(metrics, message):
    with pytest.raises(ValueError, match=message):
        EvaluationPlugin(metrics=metrics)


def test_a_metric_that_needs_more_than_a_batch_shows_says_what_to_give():
    strategy = naive(evaluator=EvaluationPlugin(metrics=["FBetaScore"]))
    strategy.eval(toy().test_stream)  # which has a default for β
    strategy = naive(evaluator=EvaluationPlugin(metrics=["MulticlassFBetaScore"]))
    with pytest.raises(ValueError, match=r"needs settings .*metrics=\[torchmetrics.MulticlassFBetaScore\(\.\.\.\)\]"):
        strategy.eval(toy().test_stream)


def test_a_metric_of_several_numbers_is_refused():
    several = torchmetrics.Accuracy("multiclass", num_classes=4, average="none")
    strategy = naive(evaluator=EvaluationPlugin(metrics={"Each": several}))
    with pytest.raises(ValueError, match=r"metric 'Each' gives .*: expected one number"):
        strategy.eval(Stream("test", [Items(lambda i: (torch.zeros(4), torch.tensor(i % 4)))]))
