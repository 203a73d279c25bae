"""The Fisher from a pass over data."""

import pytest
import torch
from torch import nn

from reference.problems import assert_same, assert_same_state, gradients, tanh_net, weights
from rwalk import RWalk, RWalkConfig, RWalkError
from rwalk.core.consolidate import estimate_fisher


def data(sizes=(4, 4, 2), seed=0):
    random = torch.Generator().manual_seed(seed)
    return [(torch.randn(size, 3, generator=random).double(), torch.zeros(size)) for size in sizes]


def by_hand(model, batches):
    """Σ_b B_b g_b² / N, labels being the model's own predictions."""
    total = {name: torch.zeros_like(value) for name, value in weights(model).items()}
    for x, _ in batches:
        model.zero_grad()
        nn.functional.nll_loss(model(x).log_softmax(1), model(x).max(dim=1).indices).backward()
        for name, gradient in gradients(model).items():
            total[name] += len(x) * gradient**2
    model.zero_grad()
    return {name: value / sum(len(x) for x, _ in batches) for name, value in total.items()}


def parameters(model):
    return dict(model.named_parameters())


def test_the_estimate_is_the_mean_of_squared_batch_gradients_by_size():
    model = tanh_net()
    found, expected = estimate_fisher(model, parameters(model), data()), by_hand(model, data())
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-12, atol=0.0)


def test_the_model_stays_as_it_was():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).double()
    model[1].eval()
    model[0].weight.grad = torch.ones_like(model[0].weight)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    model[1].train()
    with torch.no_grad():
        estimate_fisher(model, parameters(model), data())
    assert_same(model.state_dict(), state)
    assert [module.training for module in model] == [True, True, True]
    assert set(gradients(model)) == {"0.weight"}
    assert bool((model[0].weight.grad == 1.0).all())


def test_frozen_and_unused_parameters_have_zero_fisher():
    model = tanh_net()
    model[0].weight.requires_grad_(False)
    unused = nn.Parameter(torch.ones(2).double())
    found = estimate_fisher(model, {**parameters(model), "unused": unused}, data())
    assert not bool(found["0.weight"].any() or found["unused"].any())
    assert bool(found["0.bias"].any())


@pytest.mark.parametrize("batch", [torch.zeros(4, 3).double(), (torch.zeros(4, 3).double(), torch.zeros(4).long())])
def test_a_single_batch_is_refused_and_inputs_alone_will_do(batch):
    model = tanh_net()
    with pytest.raises(TypeError, match=r"batches is one .*: expected an iterable of batches; one batch is \[batch\]"):
        estimate_fisher(model, parameters(model), batch)
    pairs = data()
    found, expected = (estimate_fisher(model, parameters(model), given) for given in ([x for x, _ in pairs], pairs))
    assert_same(found, expected)


def test_no_batches_is_refused():
    model = tanh_net()
    with pytest.raises(RWalkError, match="no batches"):
        estimate_fisher(model, parameters(model), [])


def test_data_that_is_not_finite_is_refused_and_leaves_no_trace():
    model = nn.Linear(3, 2).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rwalk = RWalk(model, optimizer, RWalkConfig(fisher_source="loader"))
    step(model, optimizer, 0)
    rwalk.consolidate(data((4,)))
    step(model, optimizer, 1)
    broken = data((4,))
    broken[0][0][2, 1] = float("nan")
    before = rwalk.state_dict()
    with pytest.raises(RWalkError, match=r"'weight' is not finite on these batches\. The task has not ended"):
        rwalk.consolidate([*data((4,)), *broken])
    assert_same_state(rwalk.state_dict(), before)
    rwalk.consolidate(data((4,)))
    assert rwalk.tasks == 2


def step(model, optimizer, seed):
    optimizer.zero_grad()
    model(data((4,), seed)[0][0]).square().mean().backward()
    optimizer.step()


@pytest.mark.parametrize(("start", "first_weight"), [("first", 1.0), ("zero", 0.25)])
def test_consolidate_merges_the_estimate_by_alpha(start, first_weight):
    model = tanh_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rwalk = RWalk(model, optimizer, RWalkConfig(fisher_source="loader", fisher_start=start, ewc_alpha=0.25))
    expected = {name: torch.zeros_like(value) for name, value in weights(model).items()}
    for task, weight in enumerate((first_weight, 0.25, 0.25)):
        step(model, optimizer, task)
        estimate = by_hand(model, data(seed=task))
        rwalk.consolidate(data(seed=task))
        for name, value in rwalk.importances("fisher").items():
            expected[name] = (1 - weight) * expected[name] + weight * estimate[name]
            torch.testing.assert_close(value, expected[name], rtol=1e-12, atol=0.0)


def test_a_parameter_frozen_after_its_task_is_no_obstacle():
    model = tanh_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rwalk = RWalk(model, optimizer, RWalkConfig.facil())
    step(model, optimizer, 0)
    rwalk.consolidate(data())
    model[0].weight.requires_grad_(False)
    step(model, optimizer, 1)
    rwalk.consolidate(data())
    assert rwalk.tasks == 2


@pytest.mark.parametrize("how", ["is frozen", "leaves"])
@pytest.mark.parametrize("source", ["loader", "samples"])
def test_what_learns_nothing_keeps_its_fisher(source, how):
    model = nn.Sequential(tanh_net(), nn.Linear(2, 3).double())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rwalk = RWalk(model, optimizer, RWalkConfig(fisher_source=source, ewc_alpha=0.25))
    step(model, optimizer, 0)
    rwalk.consolidate([x for x, _ in data()])
    kept = rwalk.importances("fisher")
    if how == "is frozen":
        model[0][0].weight.requires_grad_(False)
    else:
        rwalk.detach()
        optimizer = torch.optim.SGD([*model[0][2].parameters(), *model[1].parameters()], lr=0.1)
        rwalk.attach(optimizer)
        model[0][0].weight.grad = None
    step(model, optimizer, 1)
    rwalk.consolidate([x + 1.0 for x, _ in data()])
    found = rwalk.importances("fisher")
    assert bool(kept["0.0.weight"].all())
    assert torch.equal(found["0.0.weight"], kept["0.0.weight"])
    assert not torch.equal(found["1.weight"], kept["1.weight"])


class Answering(nn.Module):
    """Takes its inputs by name, and answers with a mapping."""

    def __init__(self):
        super().__init__()
        self.inner = tanh_net()

    def forward(self, x):
        return {"logits": self.inner(x)}


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = tanh_net()

    def forward(self, parts):
        return self.inner(parts[0] + parts[1])


@pytest.mark.parametrize(
    ("model", "batch"),
    [
        (Answering, lambda x, y: {"x": x, "labels": y}),
        (Answering, lambda x, y: (x, ["a name"] * len(y))),
        (Pair, lambda x, y: ((x, torch.zeros_like(x)), y)),
    ],
)
def test_batches_and_outputs_of_any_form(model, batch):
    asked = model()
    found = estimate_fisher(asked, parameters(asked), [batch(x, y) for x, y in data()])
    for name, value in by_hand(tanh_net(), data()).items():
        torch.testing.assert_close(found[f"inner.{name}"], value, rtol=1e-12, atol=0.0)


@pytest.mark.parametrize("batch", [[], None, "text"])
def test_what_is_no_batch_is_refused_by_name(batch):
    model = tanh_net()
    with pytest.raises(RWalkError, match=f"a batch is a {type(batch).__name__}: expected a tensor x, a pair"):
        estimate_fisher(model, parameters(model), [batch])


def test_buffers_that_are_assigned_anew_are_put_back():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = tanh_net()
            self.register_buffer("calls", torch.zeros(()))
            self.register_buffer("none", None)

        def forward(self, x):
            self.calls = self.calls + 1
            self.none = torch.ones(2)
            return self.inner(x)

    model = Counting()
    calls = model.calls
    estimate_fisher(model, parameters(model), data())
    assert model.calls is calls
    assert (float(calls), model.none) == (0.0, None)


def test_rows_that_joined_by_growth_take_the_estimate_whole():
    model = tanh_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rwalk = RWalk(model, optimizer, RWalkConfig(fisher_source="loader", ewc_alpha=0.25))
    step(model, optimizer, 0)
    rwalk.consolidate(data())
    past = rwalk.importances("fisher")["2.bias"]
    for name in ("weight", "bias"):
        value = getattr(model[2], name)
        value.data, value.grad = torch.cat([value.data, value.data[:1]]), None
    step(model, optimizer, 1)
    estimate = by_hand(model, data())["2.bias"]
    rwalk.consolidate(data())
    expected = torch.cat([0.75 * past + 0.25 * estimate[:2], estimate[2:]])
    torch.testing.assert_close(rwalk.importances("fisher")["2.bias"], expected, rtol=1e-12, atol=0.0)


def test_data_where_none_is_wanted_and_none_where_it_is_are_refused():
    model = tanh_net()
    for config, batches, message in (
        (RWalkConfig(), data(), "fisher_source='step' takes no data"),
        (RWalkConfig.facil(), None, "fisher_source='loader' needs the task's data"),
    ):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        rwalk = RWalk(model, optimizer, config)
        step(model, optimizer, 0)
        before = rwalk.state_dict()
        with pytest.raises(RWalkError, match=message):
            rwalk.consolidate(batches)
        assert rwalk.tasks == 0
        assert_same(rwalk.importances("score"), {n: v["score"] for n, v in before["parameters"].items()})
        rwalk.detach()


def test_what_is_frozen_keeps_its_fisher_and_what_holds_it_when_protected():
    torch.manual_seed(8)
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 3)).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rwalk = RWalk(model, optimizer, RWalkConfig(ewc_lambda=1.0, combine="sum"))
    x, y = torch.randn(40, 4).double(), torch.randint(0, 3, (40,))
    for _ in range(12):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    rwalk.consolidate()
    fisher, held = rwalk.importances("fisher"), rwalk.importances()
    model[0].requires_grad_(False)
    rwalk.protect([x])
    assert rwalk.tasks == 2
    for name in ("0.weight", "0.bias"):
        assert bool(fisher[name].any())
        assert torch.equal(rwalk.importances("fisher")[name], fisher[name])
        assert torch.equal(rwalk.importances()[name], held[name])
    assert not torch.equal(rwalk.importances("fisher")["2.weight"], fisher["2.weight"])
