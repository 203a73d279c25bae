"""The loss that is trained on: the criterion itself, and whatever else was added to it, in place or not."""

import re
from typing import NamedTuple

import pytest
import torch
from torch import nn

from reference.problems import assert_same, weights
from rwalk import RWalkConfig
from rwalk.streams import Stream
from rwalk.training import (
    BasePlugin,
    EvaluationPlugin,
    LwFPlugin,
    MASPlugin,
    Naive,
    NearestMeanPlugin,
    ReplayPlugin,
    RWalkPlugin,
)
from training.toys import naive, net, sgd, toy


def train(strategy):
    torch.manual_seed(1)
    strategy.train(toy().train_stream[0])
    return weights(strategy.model)


def penalty(model):
    return 0.1 * sum(p.square().sum() for p in model.parameters())


def decayed():
    """Weights after training on criterion plus penalty, where the criterion itself holds the penalty."""
    model = net()
    return train(naive(model, criterion=lambda out, y: nn.functional.cross_entropy(out, y) + penalty(model)))


def in_place(strategy):
    strategy.loss += penalty(strategy.model)


def as_a_sum(strategy):
    strategy.loss = strategy.loss + penalty(strategy.model)


@pytest.mark.parametrize("add", [in_place, as_a_sum])
@pytest.mark.parametrize("hook", ["before_forward", "after_forward", "before_backward"])
def test_what_a_plugin_adds_at_any_moment_is_trained_on_once(hook, add):
    plugin = type("Add", (BasePlugin,), {hook: lambda self, strategy, **kwargs: add(strategy)})()
    found = train(naive(plugins=[plugin]))
    for name, expected in decayed().items():
        torch.testing.assert_close(found[name], expected)
    assert not torch.equal(found["0.weight"], train(naive())["0.weight"])


@pytest.mark.parametrize("add", [in_place, as_a_sum])
def test_what_a_template_adds_in_its_forward_pass_is_trained_on_once(add):
    class Penalised(Naive):
        def forward(self):
            add(self)
            return super().forward()

    model = net()
    found = train(Penalised(model=model, optimizer=sgd(model), train_mb_size=4))
    for name, expected in decayed().items():
        torch.testing.assert_close(found[name], expected)


def test_each_iteration_begins_with_a_loss_of_zero():
    class Spoil(Naive):
        def forward(self):
            before.append(float(self.loss))
            self.loss += 7.0
            return super().forward()

    before, model = [], net()
    Spoil(model=model, optimizer=sgd(model), train_mb_size=4).train(toy().train_stream[0])
    assert before == [0.0] * 3


def test_a_plugin_may_add_in_place_to_a_criterion_that_the_backward_pass_reads():
    """The gradient of a square root needs the root itself, which adding in place would spoil."""

    def root(out, y):
        return nn.functional.cross_entropy(out, y).sqrt()

    class Add(BasePlugin):
        def before_backward(self, strategy, **kwargs):
            strategy.loss += 1.0

    assert_same(train(naive(criterion=root, plugins=[Add()])), train(naive(criterion=root)))


def test_a_loss_in_bfloat16_has_a_mean_in_float32():
    class Look(BasePlugin):
        def after_training_iteration(self, strategy, **kwargs):
            losses.append(strategy.loss.detach())

    experience, losses = toy().train_stream[0], []
    experience.dataset.x = experience.dataset.x.bfloat16()
    strategy = naive(net().bfloat16(), plugins=[Look()], evaluator=EvaluationPlugin(track_training=True))
    metrics = strategy.train(experience)
    assert {loss.dtype for loss in losses} == {torch.bfloat16}
    mean = torch.stack(losses).double().mean()
    assert metrics["Loss_Epoch/train_phase/train_stream"] == pytest.approx(float(mean), rel=1e-6)


class OfRows(nn.Module):
    """Scores of two classes; it takes whatever else a row holds."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, image, **rest):
        return self.layer(image)


@pytest.mark.parametrize(
    ("rest", "columns"), [({}, "'image'"), ({"fine_label": 1}, "'image', 'fine_label'")], ids=["none", "another name"]
)
@pytest.mark.parametrize("phase", ["train", "eval"])
def test_rows_without_labels_are_told_by_the_columns_that_they_have(phase, rest, columns):
    rows = [{"image": torch.zeros(3), **rest}] * 8
    strategy = naive(OfRows())
    message = (
        f"experience 0 has no labels among the columns {columns}: cross-entropy needs a column 'labels' or 'label'"
    )
    with pytest.raises(ValueError, match=message):
        getattr(strategy, phase)(Stream("rows", [rows])[0])


def test_a_criterion_of_ones_own_may_do_without_labels():
    rows = [{"image": torch.ones(3)}] * 8
    strategy = naive(OfRows(), criterion=lambda output, _: output.square().mean())
    strategy.train(Stream("rows", [rows])[0])
    assert strategy.clock.train_iterations == 2


class Answers(NamedTuple):
    """What a model says, and on what grounds."""

    scores: torch.Tensor
    grounds: torch.Tensor


class Several(nn.Module):
    """A network that returns its scores as part of something."""

    def __init__(self, form):
        super().__init__()
        self.net, self.form = net(), form

    def forward(self, x):
        scores = self.net(x)
        return self.form(scores, scores.relu())


def judged():
    replay = ReplayPlugin(per_class=2)
    return [replay, NearestMeanPlugin(replay)]


#: What looks at a model's scores, by name.
LOOKING = {
    "metrics": lambda: [EvaluationPlugin(track_training=True)],
    "laplace": lambda: [RWalkPlugin.from_config(RWalkConfig.laplace())],
    "loader": lambda: [RWalkPlugin.from_config(RWalkConfig(fisher_source="loader"))],
    "mas": lambda: [MASPlugin(0.1)],
    "lwf": lambda: [LwFPlugin()],
    "herding": lambda: [ReplayPlugin(per_class=2, sampler="mean-of-features")],
    "judged": judged,
}


@pytest.mark.parametrize("own", [False, True], ids=["cross-entropy", "criterion"])
@pytest.mark.parametrize("plugins", LOOKING.values(), ids=LOOKING)
@pytest.mark.parametrize("form", [lambda *parts: parts, lambda *parts: list(parts), Answers])
def test_the_first_of_several_outputs_are_the_scores(form, plugins, own):
    found = []
    for made in (form, lambda scores, grounds: scores):
        model, first = Several(made), made is form
        criterion = (
            (lambda out, y, first=first: nn.functional.cross_entropy(out[0] if first else out, y)) if own else None
        )
        strategy = naive(model, plugins=plugins(), criterion=criterion)
        torch.manual_seed(1)
        strategy.train(toy().train_stream)
        found.append((weights(model), strategy.eval(toy().test_stream)))
    assert_same(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]
    assert "Top1_Acc_Stream/eval_phase/test_stream" in found[0][1]


def in_a_mapping(scores, grounds):
    return {"out": scores, "grounds": grounds}


def behind_the_loss(scores, grounds):
    return scores.sum(), grounds


@pytest.mark.parametrize(
    ("form", "told"),
    [
        (in_a_mapping, "a dict of 'out', 'grounds': expected a"),
        (behind_the_loss, "a tuple that begins with a Tensor: exp"),
    ],
)
@pytest.mark.parametrize(
    ("name", "plugins"),
    [
        ("cross-entropy", list),
        ("RWalkPlugin with fisher_source='samples'", LOOKING["laplace"]),
        ("RWalkPlugin with fisher_source='loader'", LOOKING["loader"]),
        ("MASPlugin", LOOKING["mas"]),
        ("LwFPlugin", LOOKING["lwf"]),
    ],
)
def test_scores_that_are_needed_and_not_there_are_named_in_the_first_batch(name, plugins, form, told):
    def own(output, y):
        return sum(part.sum() for part in (output.values() if isinstance(output, dict) else output))

    criterion = None if name == "cross-entropy" else own
    strategy = naive(Several(form), plugins=plugins(), criterion=criterion)
    before = weights(strategy.model)
    with pytest.raises(TypeError, match=f"^{re.escape(f'{name} needs the model')}.*{re.escape(told)}"):
        strategy.train(toy().train_stream)
    assert_same(weights(strategy.model), before)
