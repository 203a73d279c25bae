"""Parameters that leave the optimizer, return, are renamed, replaced or rest: the state is the model's."""

import pytest
import torch
from torch import nn
from torch.nn.utils import prune
from torch.nn.utils.parametrizations import weight_norm

from core.kernels import needs_compiler
from reference.problems import assert_same, assert_same_state, batches, tanh_net, train, weights
from rwalk import RWalk, RWalkConfig, RWalkError

BACKENDS = ["eager", pytest.param("fused", marks=needs_compiler)]
both = pytest.mark.parametrize("backend", BACKENDS)


def steps(model, optimizer, count, task=0):
    for x, y in batches(task, count):
        model.zero_grad()
        nn.functional.mse_loss(model(x), y).backward()
        optimizer.step()


def rested(backend, how, before, away, after, between=lambda model: None, **settings):
    """A layer that rests for some steps, frozen or out of the optimizer, and then learns again."""
    model = tanh_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rwalk = RWalk(model, optimizer, RWalkConfig(ewc_lambda=0.5, backend=backend, **settings))
    steps(model, optimizer, 27)
    rwalk.consolidate()
    steps(model, optimizer, before, task=1)
    model[0].requires_grad_(False)
    if how == "leaves":
        rwalk.detach()
        optimizer = torch.optim.SGD(model[2].parameters(), lr=0.1)
        rwalk.attach(optimizer)
    elif how == "is taken out":
        group = optimizer.param_groups[0]
        optimizer.param_groups[0] = {**group, "params": list(model[2].parameters())}
    steps(model, optimizer, away, task=2)
    saved = rwalk.state_dict()
    model[0].requires_grad_(True)
    between(model)
    if how != "is frozen":
        optimizer.add_param_group({"params": list(model[0].parameters())})
    steps(model, optimizer, after, task=3)
    rwalk.consolidate()
    return model, rwalk, saved


@pytest.mark.parametrize("settings", [{}, {"damping_scale": "relative"}, {"delta_t": None}, {"rectify": "window"}])
@pytest.mark.parametrize(("before", "away", "after"), [(0, 13, 30), (7, 13, 30), (3, 4, 12), (6, 4, 10), (9, 1, 1)])
@pytest.mark.parametrize("how", ["leaves", "is taken out"])
@both
def test_leaving_the_optimizer_is_as_good_as_being_frozen(backend, how, before, away, after, settings):
    expected, frozen, kept = rested(backend, "is frozen", before, away, after, **settings)
    model, rwalk, saved = rested(backend, how, before, away, after, **settings)
    assert_same(weights(model), weights(expected))
    for kind in ("fisher", "score", "penalty"):
        assert_same(rwalk.importances(kind), frozen.importances(kind))
    for name, values in kept["parameters"].items():
        assert_same(
            {k: v for k, v in saved["parameters"][name].items() if isinstance(v, torch.Tensor)},
            {k: v for k, v in values.items() if isinstance(v, torch.Tensor)},
        )


@pytest.mark.parametrize(("before", "away"), [(3, 4), (7, 13)])
@both
def test_what_moves_a_layer_while_it_is_away_is_no_part_of_the_walk(backend, before, away):
    def jump(model):
        with torch.no_grad():
            for parameter in model[0].parameters():
                parameter.add_(100.0)

    _, rwalk, _ = rested(backend, "leaves", before, away, 0, between=jump, ewc_alpha=0.5)
    _, still, _ = rested(backend, "leaves", before, away, 0, ewc_alpha=0.5)
    for name, score in still.importances("score").items():
        torch.testing.assert_close(rwalk.importances("score")[name], score, rtol=1e-9, atol=0.0)


@both
def test_the_state_of_a_layer_that_left_is_saved_and_goes_on(backend, tmp_path):
    finals = []
    for resumes in (False, True):
        model = tanh_net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        rwalk = RWalk(model, optimizer, RWalkConfig(ewc_lambda=0.5, backend=backend))
        steps(model, optimizer, 23)
        rwalk.consolidate()
        rwalk.detach()
        model[0].requires_grad_(False)
        optimizer = torch.optim.SGD(model[2].parameters(), lr=0.1)
        rwalk.attach(optimizer)
        steps(model, optimizer, 7, task=1)
        if resumes:
            rwalk.save(tmp_path / "state.safetensors")
            rwalk.detach()
            rwalk = RWalk.load(tmp_path / "state.safetensors", model, optimizer)
        steps(model, optimizer, 9, task=2)
        rwalk.consolidate()
        finals.append(rwalk.state_dict())
    assert_same_state(*finals)
    assert set(finals[0]["parameters"]) == {"0.weight", "0.bias", "2.weight", "2.bias"}


@pytest.mark.parametrize("how", ["file", "dictionary"])
@pytest.mark.parametrize(("before", "away"), [(3, 2), (7, 13)])
@both
def test_a_layer_that_returns_after_its_state_was_loaded_goes_on(backend, before, away, how, tmp_path):
    scores = []
    for resumes in (False, True):
        model = tanh_net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        rwalk = RWalk(model, optimizer, RWalkConfig(ewc_lambda=0.0, damping=1e-3, backend=backend))
        steps(model, optimizer, before)
        rwalk.detach()
        model[0].requires_grad_(False)
        optimizer = torch.optim.SGD(model[2].parameters(), lr=0.1)
        rwalk.attach(optimizer)
        steps(model, optimizer, away, task=1)
        if resumes and how == "file":
            rwalk.save(tmp_path / "state.safetensors")
            rwalk.detach()
            rwalk = RWalk.load(tmp_path / "state.safetensors", model, optimizer)
        elif resumes:
            rwalk.load_state_dict(rwalk.state_dict())
        model[0].requires_grad_(True)
        with torch.no_grad():
            model[0].weight.add_(1.0)  # while it was away
        optimizer.add_param_group({"params": list(model[0].parameters())})
        steps(model, optimizer, 19, task=2)
        rwalk.consolidate()
        scores.append(rwalk.importances("score"))
    assert_same(scores[1], scores[0])


def test_a_layer_that_rests_for_a_task_keeps_its_score():
    model = tanh_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rwalk = RWalk(model, optimizer)
    steps(model, optimizer, 20)
    rwalk.consolidate()
    before = {kind: rwalk.importances(kind) for kind in ("fisher", "score")}
    model[0].requires_grad_(False)
    for task in (1, 2):
        steps(model, optimizer, 20, task)
        rwalk.consolidate()
    for kind, values in before.items():
        now = rwalk.importances(kind)
        assert torch.equal(now["0.weight"], values["0.weight"])
        assert not torch.equal(now["2.weight"], values["2.weight"])


@both
def test_a_parameter_under_another_name_is_followed(backend, tmp_path):
    model = tanh_net(dtype=torch.float32)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rwalk = RWalk(model, optimizer, RWalkConfig(ewc_lambda=0.5, backend=backend))
    train(model, optimizer, 0, 13, torch.float32)
    past = rwalk.importances("score")["0.weight"]
    prune.l1_unstructured(model[0], "weight", 0.3)
    assert torch.equal(rwalk.importances("score")["0.weight_orig"], past)
    train(model, optimizer, 0, 13, torch.float32)
    rwalk.consolidate()
    assert rwalk.steps == 26
    rwalk.save(tmp_path / "state.safetensors")
    rwalk.detach()
    again = RWalk.load(tmp_path / "state.safetensors", model, optimizer)
    assert_same(again.importances(), rwalk.importances())


@pytest.mark.parametrize("ask", [RWalk.consolidate, RWalk.state_dict, RWalk.importances])
def test_another_parameter_in_its_place_is_refused(ask):
    model = tanh_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rwalk = RWalk(model, optimizer)
    steps(model, optimizer, 13)
    weight_norm(model[0])
    steps(model, optimizer, 13)
    with pytest.raises(RWalkError, match=r"no longer has '0\.weight'.*weight_norm"):
        ask(rwalk)


@both
def test_a_parameter_put_in_anothers_place_goes_on_without_the_jump(backend):
    model = nn.ParameterDict({"p": nn.Parameter(torch.tensor([1.0]).double())})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rwalk = RWalk(model, optimizer, RWalkConfig(backend=backend))

    def step():
        model["p"].grad = torch.ones(1).double()
        optimizer.step()

    for _ in range(3):
        step()
    model["p"] = optimizer.param_groups[0]["params"][0] = nn.Parameter(torch.tensor([-5.0]).double())
    step()
    kept = rwalk.state_dict()["parameters"]["p"]
    assert kept["loss_change"].item() == pytest.approx(0.4)
    assert kept["window_start"].item() - model["p"].item() == pytest.approx(0.4)


@both
def test_a_layer_that_grows_between_two_steps_keeps_the_pending_one(backend):
    states = []
    for looks in (False, True):
        torch.manual_seed(0)
        model = nn.ParameterDict({"p": nn.Parameter(torch.ones(2))})
        rwalk = RWalk(model, torch.optim.SGD(model.parameters(), lr=0.1), RWalkConfig(backend=backend), attach=False)
        for step in range(5):
            if step == 3:
                grown = nn.Parameter(torch.cat([model["p"].detach(), torch.full((2,), 5.0)]))
                optimizer = torch.optim.SGD([grown], lr=0.1)
                model["p"] = grown
                if looks:
                    rwalk.settle()
                rwalk.follow(model, optimizer)
            model["p"].grad = torch.linspace(-1.0, 1.0, len(model["p"])) * (step + 1)
            rwalk.before_step()
            rwalk.optimizer.step()
            rwalk.after_step()
        states.append(rwalk.state_dict())
    assert_same_state(*states)
    assert bool(states[0]["parameters"]["p"]["loss_change"].ne(0).all())


@both
def test_elements_that_grow_twice_each_begin_with_their_own_first_gradient(backend):
    model = nn.ParameterDict({"p": nn.Parameter(torch.ones(1))})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rwalk = RWalk(model, optimizer, RWalkConfig(backend=backend))
    for size, gradient in ((1, 2.0), (2, 3.0), (3, 4.0)):
        model["p"].data = torch.cat([model["p"].data, torch.ones(size - len(model["p"]))])
        model["p"].grad = torch.full((size,), gradient)
        optimizer.step()
    first, second, third = rwalk.importances("fisher")["p"].tolist()
    assert third == pytest.approx(16.0)
    assert second == pytest.approx(0.9 * 16.0 + 0.1 * 9.0)
    assert first == pytest.approx(0.9 * 16.0 + 0.1 * (0.9 * 9.0 + 0.1 * 4.0))


def test_optimizers_that_share_parameters_have_one_rwalk():
    model = tanh_net()
    first = torch.optim.SGD(model.parameters(), lr=0.1)
    second = torch.optim.Adam(model[2].parameters(), lr=0.1)
    rwalk = RWalk(model, first)
    with pytest.raises(RWalkError, match=r"an optimizer \(SGD\) that holds some of the same parameters"):
        RWalk(model, second)
    rwalk.detach()
    assert RWalk(model, second).attached


@pytest.mark.parametrize(
    ("patterns", "told"),
    [
        ({"exclude": ("2",)}, "exclude: the pattern '2' matches no parameter of Sequential; its names are like '2."),
        ({"include": ("0.*", "oops.*")}, "include: the pattern 'oops.*' matches no parameter"),
        ({"include": ("0.*",), "exclude": ("0.bias",)}, None),
    ],
)
def test_a_pattern_that_matches_nothing_is_told(patterns, told, caplog):
    model = tanh_net()
    RWalk(model, torch.optim.SGD(model.parameters(), lr=0.1), RWalkConfig(**patterns))
    assert (told in caplog.text) if told else not caplog.text


@pytest.mark.parametrize("unfinished", ["flush", "drop", "carry"])
def test_the_anchor_is_where_a_layer_is_even_if_it_moved_while_away(unfinished):
    model = tanh_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rwalk = RWalk(model, optimizer, RWalkConfig(ewc_lambda=1.0, unfinished=unfinished))
    steps(model, optimizer, 13)
    rwalk.detach()
    rwalk.attach(torch.optim.SGD(model[2].parameters(), lr=0.1))
    with torch.no_grad():
        model[0].weight.add_(1.0)
    rwalk.consolidate()
    assert rwalk.penalty().item() == 0.0


def test_a_layer_that_joins_later_is_watched_too():
    model = tanh_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rwalk = RWalk(model, optimizer)
    model.append(nn.Linear(2, 2).double())
    optimizer.add_param_group({"params": model[3].parameters()})
    steps(model, optimizer, 3)
    model[3].load_state_dict(model[3].state_dict())
    assert (rwalk.steps, rwalk.window_steps) == (2, 0)


@pytest.mark.parametrize("delta_t", [1, 3, None])
@pytest.mark.parametrize("phase", ["task", "run"])
def test_counters_can_be_read_at_any_time_and_change_nothing(delta_t, phase):
    states = []
    for reads in (False, True):
        model = tanh_net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        rwalk = RWalk(model, optimizer, RWalkConfig(delta_t=delta_t, window_phase=phase, unfinished="carry"))
        for number in range(1, 9):
            steps(model, optimizer, 1)
            if reads:
                seen = rwalk.task_steps, rwalk.window_steps
                full = 1 if delta_t == 1 else delta_t or 100
                assert seen == ((number - 1) % 4 + 1, number % full)
            with torch.no_grad():
                model[0].weight.clamp_(-0.3, 0.3)
            if number == 4:
                rwalk.consolidate()
        states.append(rwalk.state_dict())
    assert_same_state(*states)


class Beside(nn.Module):
    """A layer, and a parameter without elements: an adapter of rank 0, say."""

    def __init__(self):
        super().__init__()
        self.layer, self.empty = nn.Linear(6, 3), nn.Parameter(torch.zeros(0, 3))

    def forward(self, x):
        return self.layer(x) + self.empty.sum()


@pytest.mark.parametrize("end", ["protect", "consolidate"])
def test_a_parameter_without_elements_is_no_obstacle_to_single_samples(end):
    torch.manual_seed(0)
    x, y = torch.randn(12, 6), torch.randint(0, 3, (12,))
    found = []
    for has in (False, True):
        torch.manual_seed(1)
        model = Beside() if has else nn.ModuleDict({"layer": nn.Linear(6, 3)})
        forward = model if has else model["layer"]
        model.forward = forward.forward
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        rwalk = RWalk(model, optimizer, RWalkConfig.laplace())
        nn.functional.cross_entropy(forward(x), y).backward()
        optimizer.step()
        getattr(rwalk, end)([(x, y)])
        found.append(rwalk.importances())
    assert found[1].pop("empty", torch.zeros(0)).numel() == 0
    assert set(found[0]) == set(found[1])
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value)
    assert rwalk.plot_importances() is not None
