"""Where Avalanche's RWalkPlugin breaks, ours holds: the same run with either."""

import copy
import warnings

import pytest
import torch
from avalanche.models import IncrementalClassifier
from avalanche.training.plugins import RWalkPlugin as TheirRWalk
from torch import nn

from peers.cases import MODELS, mlp, seed_all, their_strategy, toy_benchmark
from peers.eval_pass import EvalPassRWalkPlugin
from rwalk import RWalkConfig
from rwalk.integrations.avalanche import to_avalanche
from rwalk.training import RWalkPlugin

pytestmark = pytest.mark.filterwarnings("ignore")


def run(plugin, model, experiences=2, optimizer=None, **options):
    """Train in Avalanche's strategy; the same data and seed for either plugin."""
    seed_all(0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05) if optimizer is None else optimizer
    strategy = their_strategy(model, optimizer, [plugin], **options)
    for experience in list(to_avalanche(toy_benchmark()).train_stream)[:experiences]:
        strategy.train(experience)
    return strategy


class Modes(nn.Module):
    """Counts its forwards in train and in eval mode."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 6))
        self.forwards = {True: 0, False: 0}

    def forward(self, x):
        self.forwards[self.training] += 1
        return self.layers(x)


def test_trap_1_theirs_trains_in_eval_mode_with_twice_the_passes_ours_does_not():
    theirs, ours = Modes(), Modes()
    run(TheirRWalk(), theirs, experiences=1)
    run(RWalkPlugin(), ours, experiences=1)
    iterations = 6 * 4
    assert theirs.forwards == {True: 0, False: 2 * iterations}
    assert ours.forwards == {True: iterations, False: 0}
    assert int(theirs.layers[1].num_batches_tracked) == 0
    assert int(ours.layers[1].num_batches_tracked) == iterations


def test_trap_1_is_all_that_parts_them_where_dropout_and_batch_norm_are():
    seed_all(0)
    first = Modes()
    finals = []
    for plugin in (
        TheirRWalk(ewc_lambda=2.0),
        EvalPassRWalkPlugin.from_config(RWalkConfig.avalanche(ewc_lambda=2.0)),
        RWalkPlugin.from_config(RWalkConfig.avalanche(ewc_lambda=2.0)),
    ):
        model = copy.deepcopy(first)
        run(plugin, model, experiences=3)
        finals.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    theirs, compared, normal = finals
    assert float((compared - theirs).abs().max() / theirs.abs().max()) < 1e-5
    assert float((normal - theirs).abs().max() / theirs.abs().max()) > 1e-2


def test_trap_2_fewer_iterations_than_a_window_turn_their_weights_to_nan_and_leave_ours_finite():
    theirs, ours = mlp(), mlp()
    run(TheirRWalk(delta_t=1000), theirs, train_epochs=1)
    plugin = RWalkPlugin.from_config(RWalkConfig.avalanche(delta_t=1000))
    run(plugin, ours, train_epochs=1)
    assert any(bool(p.isnan().any()) for p in theirs.parameters())
    assert all(bool(p.isfinite().all()) for p in ours.parameters())
    assert all(bool(value.isfinite().all()) for value in plugin.rwalk.importances().values())


class LateHead(nn.Module):
    """Gets a second layer after it was trained once."""

    def __init__(self):
        super().__init__()
        self.body, self.extra = nn.Linear(6, 6), nn.Identity()

    def forward(self, x):
        return self.extra(self.body(x))


class AddsALayer:
    """Adds the layer as the second experience begins, after `before_training`, as dynamic modules may."""

    supports_distributed = True

    def before_training_exp(self, strategy, **kwargs):
        if strategy.experience.current_experience == 1:
            strategy.model.extra = nn.Linear(6, 6)
            strategy.optimizer.add_param_group({"params": strategy.model.extra.parameters()})


@pytest.mark.parametrize(("plugin", "holds"), [(TheirRWalk(), False), (RWalkPlugin(), True)], ids=["theirs", "ours"])
def test_trap_3_a_layer_that_appears_after_training_began_stops_theirs_and_joins_ours(plugin, holds):
    model = LateHead()
    strategy = their_strategy(model, torch.optim.SGD(model.parameters(), lr=0.05), [AddsALayer(), plugin])
    experiences = list(to_avalanche(toy_benchmark()).train_stream)
    strategy.train(experiences[0])
    if holds:
        strategy.train(experiences[1])
        assert "extra.weight" in plugin.rwalk.importances()
    else:
        with pytest.raises(KeyError):
            strategy.train(experiences[1])


class AtTheFirstGrownStep:
    """Looks at the head's weight and at its anchor just before the second experience's first step."""

    supports_distributed = True

    def __init__(self, anchor_of):
        self.anchor_of, self.weight, self.anchor = anchor_of, None, None

    def before_forward(self, strategy, **kwargs):
        if strategy.experience.current_experience == 1 and self.weight is None:
            self.weight = strategy.model[1].classifier.weight.detach().clone()

    def after_update(self, strategy, **kwargs):
        if strategy.experience.current_experience == 1 and self.anchor is None:
            self.anchor = self.anchor_of(self.weight.shape).clone()


def test_trap_3_new_rows_of_a_grown_head_are_anchored_where_they_start_in_ours_and_at_zero_in_theirs():
    name = "1.classifier.weight"
    theirs, ours = TheirRWalk(), RWalkPlugin()
    looks = {
        # the lambda waits: what it looks up is made only in training
        theirs: AtTheFirstGrownStep(lambda shape: theirs.checkpoint_params[name].expand(shape)),  # noqa: PLW0108
        ours: AtTheFirstGrownStep(lambda shape: ours.rwalk.state_dict()["parameters"][name]["anchor"]),
    }
    for plugin, look in looks.items():
        seed_all(0)
        model = nn.Sequential(nn.Flatten(), IncrementalClassifier(6, initial_out_features=2))
        strategy = their_strategy(model, torch.optim.SGD(model.parameters(), lr=0.05), [plugin, look])
        stream = list(to_avalanche(toy_benchmark()).train_stream)
        strategy.train(stream[:2])  # one call: the head grows after `before_training`
        assert look.weight.shape == (4, 6)
    assert bool((looks[theirs].anchor[2:] == 0).all())
    assert bool((looks[theirs].weight[2:] != 0).all())
    assert torch.equal(looks[ours].anchor[2:], looks[ours].weight[2:])


@pytest.mark.parametrize(("plugin", "kept"), [(TheirRWalk(), False), (RWalkPlugin(), True)], ids=["theirs", "ours"])
def test_trap_3_gradients_accumulated_before_an_iteration_are_wiped_by_theirs_and_kept_by_ours(plugin, kept):
    class Accumulates:
        supports_distributed = True
        survived = None

        def before_training_iteration(self, strategy, **kwargs):
            for p in strategy.model.parameters():
                p.grad = torch.ones_like(p)

    class Looks(Accumulates):
        def before_training_iteration(self, strategy, **kwargs):
            self.survived = all(bool((p.grad == 1).all()) for p in strategy.model.parameters())

    model, looks = mlp(), Looks()
    strategy = their_strategy(model, torch.optim.SGD(model.parameters(), lr=0.05), [Accumulates(), plugin, looks])
    strategy.train(next(iter(to_avalanche(toy_benchmark()).train_stream)))
    assert looks.survived is kept


@pytest.mark.parametrize("ewc_lambda", [1e3, 1e6])
def test_trap_6_a_strong_penalty_makes_their_training_diverge_and_our_proximal_one_not(ewc_lambda):
    theirs, ours = mlp(), mlp()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run(TheirRWalk(ewc_lambda=ewc_lambda), theirs, experiences=3)
    run(RWalkPlugin.from_config(RWalkConfig.avalanche(ewc_lambda=ewc_lambda, penalty="proximal")), ours, experiences=3)
    size = [max(float(p.abs().max()) for p in model.parameters()) for model in (theirs, ours)]
    assert not size[0] < 1e3, "theirs was expected to diverge"
    assert size[1] < 10.0


def test_every_model_of_the_comparison_trains_with_ours():
    for name, (build, shape) in MODELS.items():
        seed_all(0)
        model, plugin = build(), RWalkPlugin()
        strategy = their_strategy(model, torch.optim.Adam(model.parameters(), lr=0.01), [plugin])
        for experience in to_avalanche(toy_benchmark(shape=shape)).train_stream:
            strategy.train(experience)
        assert plugin.rwalk.tasks == 3, name
