"""Where an experience ends: at the average of its iterates, weighted as the formula says."""

import pickle

import numpy as np
import pytest
import torch
from torch import nn

from rwalk import RWalkConfig
from rwalk.training import BasePlugin, MASPlugin, ReplayPlugin, RWalkPlugin, WeightAveragePlugin
from training.toys import Recorder, naive, net, toy


def numbers(model):
    """All that is averaged, in float64."""
    values = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {name: value.detach().double().clone() for name, value in values.items() if value.is_floating_point()}


def learn(model, *plugins, experience=0, epochs=4, **options):
    """The iterates of one experience, and the model."""
    iterates = []
    torch.manual_seed(1)
    recorder = Recorder(lambda s: iterates.append(numbers(s.model)), "after_update")
    strategy = naive(model, plugins=[*plugins, recorder], train_epochs=epochs, **options)
    strategy.train(toy().train_stream[experience])
    return iterates, strategy


@pytest.mark.parametrize("every", [1, 2, 3])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_model_is_set_to_the_average_in_which_the_kth_iterate_weighs_k_k1_k2(every, dropout):
    model = net(dropout=dropout)
    iterates, _ = learn(model, WeightAveragePlugin(every))
    taken = iterates[every - 1 :: every]
    assert len(iterates) == 12
    # the recursion with (eta + 1) / (k + eta), eta = 3, written out: k (k + 1) (k + 2) (k + 3) / 24 is the k-th sum
    weights = np.array([k * (k + 1) * (k + 2) for k in range(1, len(taken) + 1)], dtype=float)
    weights /= weights.sum()
    for name, value in numbers(model).items():
        expected = sum(w * iterate[name] for w, iterate in zip(weights, taken, strict=True))
        torch.testing.assert_close(value, expected, rtol=0, atol=1e-6)


def test_training_goes_on_from_the_iterates_and_the_next_experience_begins_at_the_average():
    plain, averaged = net(), net()
    ours, strategy = learn(averaged, WeightAveragePlugin(1))
    theirs, _ = learn(plain)
    for our, their in zip(ours, theirs, strict=True):
        assert all(torch.equal(value, their[name]) for name, value in our.items())
    memory = [weight.data_ptr() for weight in averaged.parameters()]
    starts = []

    class Start(BasePlugin):
        def before_forward(self, strategy, **kwargs):
            starts.append(numbers(strategy.model))

    ended = numbers(averaged)
    strategy.plugins.append(Start())
    strategy.train(toy().train_stream[1])
    assert all(torch.equal(value, ended[name]) for name, value in starts[0].items())
    assert [weight.data_ptr() for weight in averaged.parameters()] == memory


def test_it_is_where_the_core_holds_the_weights():
    model = net()
    config = RWalkConfig(delta_t=3, anchor_at="average", average_every=2)
    plugin = RWalkPlugin.from_config(config)
    learn(model, plugin, WeightAveragePlugin(2))
    held = plugin.state_dict()["rwalk"]["parameters"]
    for name, weight in model.named_parameters():
        torch.testing.assert_close(held[name]["anchor"], weight.detach(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("at", [3, 5, 6, 12])
def test_where_weights_are_replaced_it_begins_anew_as_the_core_does(at):
    class Loading(BasePlugin):
        def after_training_iteration(self, strategy, **kwargs):
            if strategy.clock.train_exp_iterations + 1 == at:
                strategy.model.load_state_dict(net(seed=7).state_dict())

    model = net()
    walk = RWalkPlugin.from_config(RWalkConfig(delta_t=3, anchor_at="average", average_every=2))
    learn(model, walk, WeightAveragePlugin(2), Loading())
    for name, weight in model.named_parameters():
        assert torch.equal(walk.rwalk.anchors()[name], weight.detach())
    if at == 12:
        assert all(torch.equal(value, numbers(net(seed=7))[name]) for name, value in numbers(model).items())


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("frozen", [[(0, 2)], [(0, 0), (0, 1)], [(1, 0), (1, 1)], [(0, 1), (1, 0)]])
def test_a_layer_that_is_frozen_for_a_while_ends_where_the_core_anchors_it(frozen, every):
    class Freezing(BasePlugin):
        def before_training_epoch(self, strategy, **kwargs):
            now = (strategy.clock.train_exp_counter, strategy.clock.train_exp_epochs)
            strategy.model[0].requires_grad_(now not in frozen)

    model = net()
    walk = RWalkPlugin.from_config(RWalkConfig(anchor_at="average", average_every=every))
    _, strategy = learn(model, walk, WeightAveragePlugin(every), Freezing())
    for experience in (None, *toy().train_stream[1:]):
        if experience is not None:
            strategy.train(experience)
        assert all(torch.equal(walk.rwalk.anchors()[name], value.detach()) for name, value in model.named_parameters())


def test_a_layer_that_is_never_trained_is_not_kept_beside_the_model():
    model, held = net(), []
    model[0].requires_grad_(False)
    plugin = WeightAveragePlugin(1)
    recorder = Recorder(lambda s: held.extend(plugin.moment_dict(s)["average"]), "after_training_epoch")
    naive(model, plugins=[plugin, recorder]).train(toy().train_stream[0])
    assert held == ["2.weight", "2.bias"]


def test_a_layer_that_has_grown_or_gone_since_the_last_iterate_stays_as_it_is():
    class Changing(BasePlugin):
        def after_training_epoch(self, strategy, **kwargs):
            strategy.model[2] = nn.Linear(8, 5)
            strategy.model.append(nn.Linear(5, 4))
            new.update(numbers(strategy.model[2:]))

    model, new = net(), {}
    naive(model, plugins=[WeightAveragePlugin(1), Changing()]).train(toy().train_stream[0])
    assert len(new) == 4
    assert all(torch.equal(value, new[name]) for name, value in numbers(model[2:]).items())


def test_a_copy_is_no_watch_on_the_model_that_it_was_made_of():
    other = net(seed=7).state_dict()
    model, plugin, copies = net(), WeightAveragePlugin(1), []

    class Copying(BasePlugin):
        def after_training_epoch(self, strategy, **kwargs):
            copies.append(pickle.loads(pickle.dumps(strategy.model)))
            copies[-1].load_state_dict(other)

    iterates, _ = learn(model, plugin, Copying())
    twin = net()
    learn(twin, WeightAveragePlugin(1))
    assert all(torch.equal(value, numbers(twin)[name]) for name, value in numbers(model).items())
    model.load_state_dict(iterates[0])
    assert not any(module._load_state_dict_post_hooks for module in model.modules())


def test_after_an_experience_shorter_than_an_interval_the_model_stays():
    model = net()
    iterates, _ = learn(model, WeightAveragePlugin(100))
    assert all(torch.equal(value, iterates[-1][name]) for name, value in numbers(model).items())


class Cast(nn.Module):
    """A layer in bfloat16 between inputs and outputs in float32."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 4).to(torch.bfloat16)

    def forward(self, x):
        return self.inner(x.to(torch.bfloat16)).float()


def test_weights_in_bfloat16_are_averaged_in_float32_and_rounded_once():
    torch.manual_seed(0)
    model = Cast()
    iterates, _ = learn(model, WeightAveragePlugin(1), epochs=20, optimizer=torch.optim.SGD(model.parameters(), 1e-2))
    weights = np.array([k * (k + 1) * (k + 2) for k in range(1, len(iterates) + 1)], dtype=float)
    for name, value in numbers(model).items():
        expected = sum(w * iterate[name] for w, iterate in zip(weights / weights.sum(), iterates, strict=True))
        assert ((value - expected).abs() <= expected.abs() * 2**-8 * 1.001).all()  # half of a last place


def test_layers_that_come_with_an_experience_are_averaged_too():
    class Growing(BasePlugin):
        def before_training_exp(self, strategy, **kwargs):
            if strategy.clock.train_exp_counter == 1:
                strategy.model.insert(2, nn.Linear(8, 8))
                strategy.optimizer.add_param_group({"params": list(strategy.model[2].parameters())})

    model, iterates = net(), []
    recorder = Recorder(lambda s: iterates.append(numbers(s.model)), "after_update")
    strategy = naive(model, plugins=[WeightAveragePlugin(1), Growing(), recorder])
    for experience in toy().train_stream:
        strategy.train(experience)
    third = iterates[-3:]
    for name, value in numbers(model).items():
        expected = (6 * third[0][name] + 24 * third[1][name] + 60 * third[2][name]) / 90
        torch.testing.assert_close(value, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("every", [0, -1, 2.5, True, "10"])
def test_an_interval_that_is_no_number_of_iterations_is_refused(every):
    with pytest.raises(ValueError, match=r"every=.*: expected a positive whole number"):
        WeightAveragePlugin(every)


def test_plugins_that_look_at_the_finished_model_see_the_average_if_they_come_later():
    model = net()
    seen = {}

    class Look(BasePlugin):
        def after_training_exp(self, strategy, **kwargs):
            seen.update(numbers(strategy.model))

    iterates, _ = learn(model, WeightAveragePlugin(1), MASPlugin(0.1), ReplayPlugin(per_class=2), Look())
    assert not any(torch.equal(value, seen[name]) for name, value in iterates[-1].items())
    assert all(torch.equal(value, seen[name]) for name, value in numbers(model).items())
