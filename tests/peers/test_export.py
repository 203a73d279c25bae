"""What Avalanche's own plugin has learned goes on in ours."""

from copy import deepcopy

import pytest
import torch
from avalanche.training.plugins import RWalkPlugin as TheirRWalk
from avalanche.training.plugins import SupervisedPlugin

from peers.cases import mlp, seed_all, their_strategy, toy_benchmark
from rwalk import RWalk, RWalkConfig, RWalkError
from rwalk.core.files import save_state
from rwalk.integrations.avalanche import state_from_avalanche, to_avalanche
from rwalk.training import RWalkPlugin

pytestmark = pytest.mark.filterwarnings("ignore")


class SamePermutations(SupervisedPlugin):
    """Both strategies see the same batches, whatever came before."""

    def before_training_exp(self, strategy, **kwargs):
        torch.manual_seed(7)


def learned(experiences):
    seed_all(0)
    model, plugin = mlp(), TheirRWalk(ewc_lambda=2.0, ewc_alpha=0.7, delta_t=3)
    strategy = their_strategy(model, torch.optim.SGD(model.parameters(), lr=0.05), [plugin, SamePermutations()])
    for experience in experiences:
        strategy.train(experience)
    clock = strategy.clock
    return strategy, plugin, {"tasks": clock.train_exp_counter, "steps": clock.train_iterations}


def test_their_importances_and_anchors_are_ours(tmp_path):
    stream = to_avalanche(toy_benchmark()).train_stream
    strategy, plugin, counters = learned(stream[:2])
    save_state(state_from_avalanche(plugin, **counters), tmp_path / "state")
    model = strategy.model
    rwalk = RWalk.load(tmp_path / "state", model, torch.optim.SGD(model.parameters(), lr=0.05))
    assert (rwalk.tasks, rwalk.config.ewc_lambda, rwalk.config.delta_t) == (2, 2.0, 3)
    ours = rwalk.importances()
    assert set(ours) == set(plugin.exp_penalties)
    for name, theirs in plugin.exp_penalties.items():
        assert torch.equal(ours[name], theirs.data)
        assert float(theirs.data.max()) > 0
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1)
    expected = sum(float((p.data * 0.01).sum()) for p in plugin.exp_penalties.values()) * 2.0
    assert rwalk.penalty().item() == pytest.approx(expected, rel=1e-4)


def test_training_goes_on_as_theirs_does():
    stream = to_avalanche(toy_benchmark()).train_stream
    theirs, plugin, counters = learned(stream[:1])
    state, model = state_from_avalanche(plugin, **counters), deepcopy(theirs.model)
    ours = RWalkPlugin.from_config(RWalkConfig.from_dict(state["config"]))
    ours.load_state_dict({"rwalk": state})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    strategy = their_strategy(model, optimizer, [ours, SamePermutations()])
    for each in (theirs, strategy):
        each.train(stream[1])
    for name, parameter in theirs.model.named_parameters():
        torch.testing.assert_close(model.get_parameter(name), parameter, rtol=1e-4, atol=1e-5)
    for name, penalty in plugin.exp_penalties.items():
        torch.testing.assert_close(ours.rwalk.importances()[name], penalty.data, rtol=1e-2, atol=1e-4)


def test_before_the_first_experience_there_is_nothing_to_export():
    with pytest.raises(RWalkError, match="no importances yet"):
        state_from_avalanche(TheirRWalk(), tasks=0, steps=0)
