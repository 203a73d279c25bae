"""The training template: the state that plugins read, and what they may change."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Subset

from reference.problems import assert_same, weights
from rwalk.streams import Stream, TensorData
from training.toys import Recorder, naive, net, sgd, toy


def test_plugins_read_the_state_of_the_moment():
    benchmark, seen = toy(), {}

    class Look(Recorder):
        def before_forward(self, strategy, **kwargs):
            seen["cleared"] = all(parameter.grad is None for parameter in strategy.model.parameters())
            seen["loss before"] = float(strategy.loss)

        def before_backward(self, strategy, **kwargs):
            x, y, task = strategy.mbatch
            assert (x is strategy.mb_x, y is strategy.mb_y, task is strategy.mb_task_id) == (True, True, True)
            assert torch.equal(strategy.mb_output, strategy.model(x))
            assert torch.equal(strategy.loss, nn.functional.cross_entropy(strategy.mb_output, y))
            seen["experience"] = strategy.experience
            seen["training"] = (strategy.is_training, strategy.is_eval, strategy.model.training)
            seen["dataset"] = strategy.adapted_dataset
            seen["batches"] = len(strategy.dataloader)

        def after_eval_iteration(self, strategy, **kwargs):
            assert torch.equal(strategy.loss, nn.functional.cross_entropy(strategy.mb_output, strategy.mb_y))
            seen["evaluating"] = (strategy.is_training, strategy.is_eval, strategy.model.training)
            seen["gradients"] = torch.is_grad_enabled()

    strategy = naive(plugins=[Look()])
    experience = benchmark.train_stream[1]
    strategy.train(experience)
    strategy.eval(benchmark.test_stream)
    assert seen == {
        "cleared": True,
        "loss before": 0.0,
        "experience": experience,
        "training": (True, False, True),
        "dataset": experience.dataset,
        "batches": 3,
        "evaluating": (False, True, False),
        "gradients": False,
    }
    assert strategy.experience is None
    assert strategy.device == torch.device("cpu")


def test_what_a_plugin_adds_to_the_loss_is_trained_on():
    class Decay(Recorder):
        def before_backward(self, strategy, **kwargs):
            strategy.loss += 1000 * sum(p.square().sum() for p in strategy.model.parameters())

    model = net()
    before = weights(model)
    naive(model, optimizer=sgd(model, lr=1e-4), plugins=[Decay()], train_mb_size=100).train(toy().train_stream[0])
    for name, parameter in model.named_parameters():
        assert parameter.norm() < 0.9 * before[name].norm()


def test_a_plugin_may_replace_the_data():
    class OnlyTwo(Recorder):
        def after_train_dataset_adaptation(self, strategy, **kwargs):
            strategy.adapted_dataset = strategy.adapted_dataset.subset(torch.tensor([0, 1]))

    recorder = Recorder(lambda strategy: len(strategy.mb_y), "after_forward")
    naive(plugins=[OnlyTwo(), recorder]).train(toy().train_stream[0])
    assert recorder.notes("after_forward") == [2]


def test_loader_settings_reach_the_loader():
    recorder = Recorder(lambda strategy: strategy.mb_x, "after_forward")
    data = toy().train_stream[0].dataset
    naive(plugins=[recorder], train_mb_size=5).train(toy().train_stream[0], shuffle=False, drop_last=True)
    assert torch.equal(torch.cat(recorder.notes("after_forward")), data.x[:10])


def test_another_criterion_is_used():
    class Regression(Recorder):
        def before_backward(self, strategy, **kwargs):
            expected = nn.functional.mse_loss(strategy.mb_output[:, 0], strategy.mb_y.float())
            assert torch.equal(strategy.loss, expected)
            self.events.append(("checked", None))

    plugin = Regression()
    naive(plugins=[plugin], criterion=lambda out, y: nn.functional.mse_loss(out[:, 0], y.float())).train(
        toy().train_stream[0]
    )
    assert plugin.names.count("checked") == 3


def test_a_label_that_the_model_has_no_output_for_is_named_before_any_update():
    model, benchmark = net(outputs=3), toy()
    before = weights(model)
    strategy = naive(model)
    with pytest.raises(ValueError, match=r"experience 1 has label 3, but the model has 3 outputs \(labels 0 to 2\)"):
        strategy.train(benchmark.train_stream[1])
    assert_same(weights(model), before)


def test_a_rare_label_is_found_before_any_update_wherever_it_stands_and_in_evaluation_too():
    rare = Stream("rare", [TensorData(torch.zeros(40, 4), torch.tensor([0] * 39 + [3]))])
    model = net(outputs=3)
    before = weights(model)
    for use in (naive(model).train, naive(model).eval):
        with pytest.raises(ValueError, match="experience 0 has label 3, but the model has 3 outputs"):
            use(rare)
    assert_same(weights(model), before)


@pytest.mark.parametrize("name", ["train_mb_size", "train_epochs", "eval_mb_size"])
def test_sizes_start_at_1(name):
    with pytest.raises(ValueError, match=f"{name}=0: expected at least 1"):
        naive(**{name: 0})


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (
            lambda data: data,
            r"a TensorData: expected an experience, or several; make .*, as in Stream\('train', \[data",
        ),
        (lambda data: Subset(data, [0]), "a Subset: expected an experience"),
        (lambda data: [data], "a list of TensorData: expected an experience"),
        (lambda data: [(data.x[0], data.targets[0])], "a list of tuple: expected an experience"),
        (DataLoader, "a DataLoader of list: expected an experience"),
        (lambda data: toy(), "a Benchmark: expected an experience, or several; give its train_stream or test_stream"),
    ],
)
def test_what_is_no_experience_is_named_with_what_to_do(made, message):
    recorder, experience = Recorder(), toy().train_stream[0]
    strategy, given = naive(plugins=[recorder]), made(experience.dataset)
    calls = (strategy.train, strategy.eval, lambda given: strategy.train(experience, eval_streams=[given]))
    for call in calls:
        with pytest.raises(TypeError, match=message):
            call(given)
    assert recorder.names == []
    assert not strategy.is_training
