"""Parameters that come, go, rest, are shared, grow, or differ in group and dtype."""

import pytest
import torch
from torch import nn

from reference.problems import assert_same, tanh_net, train, weights
from rwalk import RWalk, RWalkConfig, RWalkError


def step(model, optimizer, loss):
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def anchors(rwalk):
    return {name: values["anchor"] for name, values in rwalk.state_dict()["parameters"].items()}


class Heads(nn.Module):
    """One body, several heads, of which a batch uses one."""

    def __init__(self, heads=2):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Linear(3, 4).double()
        self.heads = nn.ModuleList([nn.Linear(4, 2).double() for _ in range(heads)])

    def loss(self, head, seed=0):
        x = torch.randn(5, 3, generator=torch.Generator().manual_seed(seed)).double()
        return self.heads[head](torch.tanh(self.body(x))).square().mean()


def test_frozen_and_unused_parameters_have_no_state_and_no_penalty():
    model = Heads()
    model.body.weight.requires_grad_(False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rwalk = RWalk(model, optimizer)
    for index in range(12):
        step(model, optimizer, model.loss(0, index))
    rwalk.consolidate()
    assert set(rwalk.importances()) == {"body.bias", "heads.0.weight", "heads.0.bias"}
    assert set(rwalk.state_dict()["parameters"]) == set(rwalk.importances())


def test_a_parameter_unfrozen_later_joins_with_zero_importance_and_its_present_value():
    model = Heads()
    model.body.weight.requires_grad_(False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rwalk = RWalk(model, optimizer, RWalkConfig(ewc_lambda=1.0))
    for index in range(12):
        step(model, optimizer, model.loss(0, index))
    rwalk.consolidate()
    model.body.weight.requires_grad_(True)
    start = model.body.weight.detach().clone()
    for index in range(3):
        step(model, optimizer, model.loss(0, index))
    assert not bool(rwalk.importances()["body.weight"].any())
    assert torch.equal(anchors(rwalk)["body.weight"], start)
    rwalk.consolidate()
    assert bool(rwalk.importances()["body.weight"].any())
    assert torch.equal(anchors(rwalk)["body.weight"], model.body.weight)


def test_a_head_that_rests_keeps_its_fisher_and_its_weights():
    model = Heads()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    rwalk = RWalk(model, optimizer, RWalkConfig(ewc_lambda=1.0))
    for index in range(12):
        step(model, optimizer, model.loss(0, index))
    rwalk.consolidate()
    fisher, resting = rwalk.importances("fisher"), weights(model.heads[0])
    for index in range(7):
        step(model, optimizer, model.loss(1, index))
    now = rwalk.importances("fisher")
    assert_same(weights(model.heads[0]), resting)
    assert torch.equal(now["heads.0.weight"], fisher["heads.0.weight"])
    assert not torch.equal(now["body.weight"], fisher["body.weight"])


def test_tied_parameters_count_once_with_their_whole_gradient():
    encoder, decoder = nn.Linear(3, 3, bias=False).double(), nn.Linear(3, 3, bias=False).double()
    decoder.weight = encoder.weight
    model = nn.ModuleDict({"encoder": encoder, "decoder": decoder})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rwalk = RWalk(model, optimizer)
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).double()
    step(model, optimizer, decoder(encoder(x)).square().mean())
    fisher = rwalk.importances("fisher")
    assert set(fisher) == {"encoder.weight"}
    torch.testing.assert_close(fisher["encoder.weight"], encoder.weight.grad**2)


def test_proximal_step_uses_each_groups_learning_rate():
    model = tanh_net()
    optimizer = torch.optim.SGD(
        [{"params": [model[0].bias, model[2].weight], "lr": 0.5}, {"params": [model[2].bias, model[0].weight]}], lr=0.01
    )
    rwalk = RWalk(model, optimizer, RWalkConfig(ewc_lambda=3.0, penalty="proximal"))
    train(model, optimizer, task=0, steps=12)
    rwalk.consolidate()
    train(model, optimizer, task=1, steps=1)
    before, anchor, importance = weights(model), anchors(rwalk), rwalk.importances()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        lr = 0.5 if name in {"0.bias", "2.weight"} else 0.01
        c = 2 * lr * 3.0 * importance[name]
        torch.testing.assert_close(parameter.detach(), (before[name] - lr + c * anchor[name]) / (1 + c))


def test_a_parameter_group_added_midway_is_tracked_from_then_on():
    model = Heads()
    optimizer = torch.optim.SGD([*model.body.parameters(), *model.heads[0].parameters()], lr=0.1)
    rwalk = RWalk(model, optimizer, RWalkConfig(ewc_lambda=1.0))
    for index in range(12):
        step(model, optimizer, model.loss(0, index))
    rwalk.consolidate()
    model.heads.append(nn.Linear(4, 2).double())
    optimizer.add_param_group({"params": model.heads[2].parameters(), "lr": 0.2})
    start = model.heads[2].weight.detach().clone()
    step(model, optimizer, model.loss(2))
    assert torch.equal(anchors(rwalk)["heads.2.weight"], start)
    torch.testing.assert_close(rwalk.importances("fisher")["heads.2.weight"], model.heads[2].weight.grad ** 2)
    rwalk.consolidate()
    assert bool(rwalk.importances()["heads.2.weight"].any())


def test_maximising_optimizers_are_refused():
    model = tanh_net()
    with pytest.raises(RWalkError, match="maximize=True"):
        RWalk(model, torch.optim.SGD(model.parameters(), lr=0.1, maximize=True))


@pytest.mark.parametrize("how", ["a group is set", "a state is loaded"])
def test_optimizers_that_maximise_later_are_refused_before_they_move_anything(how):
    model = tanh_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rwalk = RWalk(model, optimizer)
    step(model, optimizer, model(torch.ones(2, 3, dtype=torch.float64)).square().mean())
    kept = model[0].weight.detach().clone()
    if how == "a group is set":
        optimizer.param_groups[0]["maximize"] = True
    else:
        optimizer.load_state_dict(torch.optim.SGD(model.parameters(), lr=0.1, maximize=True).state_dict())
    with pytest.raises(RWalkError, match="maximize=True"):
        step(model, optimizer, model(torch.ones(2, 3, dtype=torch.float64)).square().mean())
    assert torch.equal(model[0].weight, kept)
    optimizer.param_groups[0]["maximize"] = False
    step(model, optimizer, model(torch.ones(2, 3, dtype=torch.float64)).square().mean())
    assert rwalk.steps == 2


def test_a_lazy_model_is_followed_from_its_first_forward_pass_on():
    model = nn.Sequential(nn.LazyLinear(4), nn.Tanh(), nn.Linear(4, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rwalk = RWalk(model, optimizer)
    with pytest.raises(RWalkError, match=r"0\.(weight|bias) has no values yet: initialise the model"):
        rwalk.protect([torch.ones(2, 3)])
    for _ in range(3):
        step(model, optimizer, model(torch.randn(5, 3)).square().mean())
    rwalk.consolidate()
    assert rwalk.importances()["0.weight"].shape == (4, 3)


def test_complex_parameters_are_refused_by_protect_too():
    class Turned(nn.Module):
        def __init__(self):
            super().__init__()
            self.turn, self.layer = nn.Parameter(torch.ones(3, dtype=torch.complex64)), nn.Linear(3, 2)

        def forward(self, x):
            return self.layer((x * self.turn).real)

    model = Turned()
    rwalk = RWalk(model, torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(RWalkError, match=r"turn is complex: RWalk needs real parameters; .*exclude=\('turn',\)"):
        rwalk.protect([torch.ones(2, 3)])
    assert rwalk.tasks == 0


def test_sparse_gradients_are_refused_with_the_way_out():
    model = nn.Sequential(nn.Embedding(5, 2, sparse=True), nn.Linear(2, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rwalk = RWalk(model, optimizer)
    with pytest.raises(RWalkError, match=r"0\.weight has a torch\.sparse_coo gradient.*exclude=\('0\.weight',\)"):
        step(model, optimizer, model(torch.tensor([1, 2])).sum())
    rwalk.detach()
    RWalk(model, optimizer, RWalkConfig(exclude=("0.weight",)))
    step(model, optimizer, model(torch.tensor([1, 2])).sum())


def test_an_optimizer_without_the_models_parameters_is_refused():
    with pytest.raises(RWalkError, match="holds none of the parameters of Sequential"):
        RWalk(tanh_net(), torch.optim.SGD(tanh_net().parameters(), lr=0.1))


def test_only_what_the_optimizer_moves_is_tracked():
    model = tanh_net()
    optimizer = torch.optim.SGD(model[2].parameters(), lr=0.1)
    rwalk = RWalk(model, optimizer)
    train(model, optimizer, task=0, steps=2)
    assert set(rwalk.importances("fisher")) == {"2.weight", "2.bias"}


def test_a_parameter_without_elements_does_no_harm():
    model = nn.ParameterDict({"empty": nn.Parameter(torch.empty(0)), "one": nn.Parameter(torch.ones(1).double())})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rwalk = RWalk(model, optimizer, RWalkConfig(damping_scale="relative"))
    for _ in range(12):
        step(model, optimizer, model["one"].square().sum() + model["empty"].sum())
    rwalk.consolidate()
    assert rwalk.importances()["one"].item() == 2.0
