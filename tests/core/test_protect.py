"""A model that nobody watched is protected by the squared gradients of single samples, as naive loops have them."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from rwalk import RWalk, RWalkConfig, RWalkError


def rwalk_on(model, **settings):
    return RWalk(model, torch.optim.SGD(model.parameters(), lr=0.1), RWalkConfig(ewc_lambda=1.0, **settings))


def naive(model, samples, log_prob):
    """Sample by sample, in a loop."""
    total = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for sample in samples:
        gradients = torch.autograd.grad(log_prob(model, *sample), list(model.parameters()), allow_unused=True)
        for name, gradient in zip(total, gradients, strict=True):
            total[name] += 0.0 if gradient is None else gradient.square()
    return {name: value / len(samples) for name, value in total.items()}


def batches(x, y, size=8):
    return [(x[i : i + size], y[i : i + size]) for i in range(0, len(x), size)]


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.head = nn.GRU(6, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, x):
        return self.head(self.inner(x)[0][:, -1])


class Tied(nn.Module):
    """A language model whose output layer is its embedding, used as a function: no layer's hook sees that."""

    def __init__(self, vocabulary=11, width=6):
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width, padding_idx=0)
        self.mixed, self.norm = nn.Linear(width, width), nn.LayerNorm(width)

    def forward(self, tokens):
        hidden = self.norm(self.tokens(tokens)).cumsum(1)
        return self.mixed(hidden).tanh() @ self.tokens.weight.T


class Scaled(nn.Module):
    """Parameters in no known layer, and a layer that is called twice."""

    def __init__(self):
        super().__init__()
        self.scale, self.layer = nn.Parameter(torch.ones(4)), nn.Linear(4, 4)

    def forward(self, x):
        return self.layer(self.layer(x).tanh() * self.scale)


@pytest.mark.parametrize("before", [nn.Identity, lambda: nn.BatchNorm1d(3), lambda: nn.LayerNorm(3)])
def test_a_layer_whose_output_is_written_over_has_the_gradients_it_had(before):
    """As with ReLU(inplace=True), of which the first samples may not tell."""
    found = []
    for inplace in (False, True):
        torch.manual_seed(4)
        model = nn.Sequential(nn.Linear(4, 3), before(), nn.ReLU(inplace=inplace), nn.Linear(3, 3)).double().eval()
        x, y = torch.randn(40, 4).double(), torch.randint(0, 3, (40,))
        rwalk = rwalk_on(model, scaling="none")
        done = rwalk.protect([(x, y)], labels="data")
        assert done.method == "closed form"
        found.append(rwalk.importances())
        expected = naive(model, list(zip(x, y, strict=True)), classes)
        for name, value in found[-1].items():
            torch.testing.assert_close(value, expected[name], rtol=1e-9, atol=1e-15)


def classes(model, x, y):
    return -cross_entropy(model(x[None]), y[None], reduction="sum")


def at_each_position(model, x, y):
    return -cross_entropy(model(x[None])[0], y, reduction="sum", ignore_index=-100)


def marks(model, x, y):
    return -binary_cross_entropy_with_logits(model(x[None])[0], y, reduction="sum")


def numbers(model, x, y):
    return -0.5 * (model(x[None])[0] - y).square().sum()


def random(*shape):
    return torch.randn(shape, dtype=torch.float64)


def sequences():
    tokens = torch.randint(1, 11, (20, 7))
    labels = tokens.roll(-1, 1)
    tokens[::3, 5:], labels[::3, 4:] = 0, -100
    return tokens, labels


def twice():
    layer = nn.Linear(6, 6)
    return nn.Sequential(layer, nn.Tanh(), layer, nn.LayerNorm(6), nn.Linear(6, 3))


def convolutions():
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, stride=2), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, (2, 1), bias=False),
        nn.Flatten(), nn.Linear(18, 3),
    )  # fmt: skip


CASES = {
    "mlp": (
        lambda: nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)),
        lambda: random(20, 6),
        3,
        "closed form",
    ),
    "cnn": (convolutions, lambda: random(20, 2, 6, 5), 3, "closed form"),
    "a layer twice": (twice, lambda: random(20, 6), 3, "closed form"),
    "own layers": (Scaled, lambda: random(20, 4), 4, "vmap"),
    "gru": (Recurrent, lambda: random(20, 4, 6), 3, "one at a time"),
}


@pytest.mark.parametrize("name", CASES)
def test_classes(name):
    torch.manual_seed(0)
    build, inputs, number, method = CASES[name]
    model, x, y = build().double(), inputs(), torch.randint(0, number, (20,))
    model(x)  # running statistics
    expected = naive(copy.deepcopy(model).eval(), list(zip(x, y, strict=True)), classes)
    rwalk = rwalk_on(model)
    done = rwalk.protect(batches(x, y), labels="data")
    assert (done.samples, done.likelihood, done.labels, done.method) == (20, "categorical", "data", method)
    for parameter, value in rwalk.importances("fisher").items():
        torch.testing.assert_close(value, expected[parameter], rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("kind", ["marks", "numbers", "sequences"])
def test_other_labels(kind):
    torch.manual_seed(0)
    if kind == "sequences":
        model, (x, y), log_prob = Tied().double(), sequences(), at_each_position
    else:
        model, x = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4)).double(), random(20, 6)
        y, log_prob = (random(20, 4), numbers) if kind == "numbers" else (random(20, 4).gt(0).double(), marks)
    rwalk = rwalk_on(model)
    done = rwalk.protect(batches(x, y), labels="data")
    assert done.likelihood == {"marks": "bernoulli", "numbers": "gaussian", "sequences": "categorical"}[kind]
    expected = naive(model, list(zip(x, y, strict=True)), log_prob)
    for name, value in rwalk.importances("fisher").items():
        torch.testing.assert_close(value, expected[name], rtol=1e-9, atol=1e-15)


def test_a_users_own_log_probability():
    torch.manual_seed(0)
    model, x = nn.Linear(3, 2).double(), random(12, 3)

    def laplace(model, batch, rng):
        return -(model(batch) - torch.randn(len(batch), 2, generator=rng, dtype=torch.float64)).abs().sum(1)

    rwalk = rwalk_on(model)
    assert rwalk.protect([x[:5], x[5:]], log_prob=laplace).likelihood == "log_prob"
    expected = x.square().mean(0).expand(2, 3)  # the gradient's sign is ±1
    torch.testing.assert_close(rwalk.importances("fisher")["weight"], expected)
    with pytest.raises(RWalkError, match=r"log_prob returned \(\) for"):
        rwalk.protect([x], log_prob=lambda model, batch, rng: model(batch).sum())


@pytest.mark.parametrize("kind", ["categorical", "bernoulli", "gaussian"])
def test_labels_drawn_from_the_model_give_the_fisher_proper(kind):
    torch.manual_seed(1)
    model, x = nn.Linear(2, 3).double(), random(1, 2)
    rwalk = rwalk_on(model)
    rwalk.protect([x.expand(4000, 2)], likelihood=kind)
    p = model(x)[0].softmax(0) if kind == "categorical" else model(x)[0].sigmoid()
    variance = torch.ones(3, dtype=torch.float64) if kind == "gaussian" else p * (1 - p)
    found = rwalk.importances("fisher")["bias"]
    torch.testing.assert_close(found, variance, rtol=0.1, atol=0.0)


def test_the_most_likely_labels():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double(), random(20, 6)
    rwalk = rwalk_on(model)
    rwalk.protect([x], labels="argmax")
    expected = naive(model, list(zip(x, model(x).argmax(1), strict=True)), classes)
    for name, value in rwalk.importances("fisher").items():
        torch.testing.assert_close(value, expected[name], rtol=1e-9, atol=1e-15)


def test_the_model_is_left_as_it_was():
    torch.manual_seed(0)
    model = convolutions()
    model.append(nn.Dropout(0.5))
    model[1].eval()
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    before, modes = copy.deepcopy(model.state_dict()), [module.training for module in model.modules()]
    state = torch.get_rng_state()
    rwalk = rwalk_on(model)
    rwalk.protect([torch.randn(6, 2, 6, 5)])
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(bool((p.grad == 1).all()) for p in model.parameters())
    rwalk.protect([torch.randn(6, 2, 6, 5)])
    torch.set_rng_state(state)
    assert rwalk.tasks == 2


def test_it_stops_after_the_samples_asked_for():
    seen = []

    def stream():
        for _ in range(100):
            seen.append(1)
            yield torch.randn(8, 3)

    assert rwalk_on(nn.Linear(3, 2)).protect(stream(), max_samples=20).samples == 20
    assert len(seen) == 3


def test_it_holds_the_weights_before_any_step_was_taken():
    torch.manual_seed(0)
    model, x = nn.Linear(3, 2).double(), random(30, 3)
    rwalk = rwalk_on(model)
    rwalk.protect([x])
    assert rwalk.tasks == 1
    importance, anchor = rwalk.importances(), {n: p.detach().clone() for n, p in model.named_parameters()}
    assert float(max(value.max() for value in importance.values())) == 1.0
    for p in model.parameters():
        p.data.add_(0.5)
        p.grad = torch.zeros_like(p)
    rwalk.optimizer.step()
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.grad, 2.0 * importance[name] * 0.5)
        torch.testing.assert_close(anchor[name] + 0.5 - 0.1 * p.grad, p.detach())


@pytest.mark.parametrize("terms", ["both", "score", "fisher"])
def test_scores_that_were_walked_join_it(terms):
    torch.manual_seed(0)
    model, x = nn.Linear(3, 2), torch.randn(30, 3)
    y = torch.randint(0, 2, (30,))
    rwalk = rwalk_on(model, delta_t=2, terms=terms)
    for _ in range(6):
        rwalk.optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        rwalk.optimizer.step()
    rwalk.protect([(x, y)])
    for name, value in rwalk.importances().items():
        kinds = ("fisher",) if terms == "fisher" else ("fisher", "score")
        parts = [rwalk.importances(kind) for kind in kinds]
        highest = [max(float(v.max()) for v in part.values()) for part in parts]
        scaled = sum(part[name].clamp(min=0.0) / high for part, high in zip(parts, highest, strict=True))
        torch.testing.assert_close(value, scaled)


def test_sums_of_importances_are_sums_of_penalties():
    torch.manual_seed(0)
    model, places, gradients = nn.Linear(3, 2).double(), [], []
    rwalk = rwalk_on(model)
    for _ in range(3):
        x = random(20, 3)
        alone = rwalk_on(copy.deepcopy(model))
        alone.protect([x])
        rwalk.protect([x])
        places.append(alone)
        for p in model.parameters():
            p.data.add_(torch.randn_like(p))
    for name, p in model.named_parameters():
        gradients.append((rwalk.state_dict()["parameters"][name], p.detach()))
        importance, anchor = gradients[-1][0]["importance"], gradients[-1][0]["anchor"]
        parts = [place.state_dict()["parameters"][name] for place in places]
        expected = sum(part["importance"] * (p.detach() - part["anchor"]) for part in parts)
        torch.testing.assert_close(importance * (p.detach() - anchor), expected)


@pytest.mark.parametrize("combine", ["max", "mean", "replace"])
def test_other_ways_to_combine(combine):
    torch.manual_seed(0)
    model, found = nn.Linear(3, 2).double(), []
    rwalk = rwalk_on(model)
    for _ in range(2):
        x = random(20, 3)
        alone = rwalk_on(copy.deepcopy(model))
        alone.protect([x])
        rwalk.protect([x], combine=combine)
        found.append(alone.importances())
        for p in model.parameters():
            p.data.add_(torch.randn_like(p))
    for name, value in rwalk.importances().items():
        last = found[1][name]
        both = {"max": torch.maximum(found[0][name], last), "mean": (found[0][name] + last) / 2, "replace": last}
        torch.testing.assert_close(value, both[combine])


@pytest.mark.parametrize(("own", "expected"), [("replace", 2.0), ("sum", 2.0), ("mean", 1.0)])
def test_without_a_word_it_joins_as_the_config_has_it_and_keeps_the_past(own, expected):
    torch.manual_seed(0)
    rwalk = rwalk_on(nn.Linear(3, 2).double(), combine=own, scaling="sum")
    for _ in range(2):
        rwalk.protect([random(20, 3)])
    assert sum(float(value.sum()) for value in rwalk.importances().values()) == pytest.approx(expected)


def test_a_score_that_has_joined_at_a_tasks_end_does_not_join_again():
    torch.manual_seed(0)
    model = nn.Linear(3, 2).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rwalk = RWalk(model, optimizer, RWalkConfig(combine="sum", scaling="sum", delta_t=1))
    for _ in range(4):
        optimizer.zero_grad()
        model(random(5, 3)).square().mean().backward()
        optimizer.step()
    rwalk.consolidate()
    rwalk.protect([random(20, 3)])
    assert sum(float(value.sum()) for value in rwalk.importances().values()) == pytest.approx(3.0)


REFUSED = {
    "one output": (nn.Linear(3, 1), torch.randn(4, 3), {}, r"outputs of shape \(4, 1\) without labels"),
    "which are classes": (
        nn.Unflatten(1, (2, 2)), (torch.randn(4, 4), torch.zeros(4, 2, dtype=torch.int64)), {}, "which dimension"
    ),
    "no labels": (nn.Linear(3, 2), torch.randn(4, 3), {"labels": "data"}, "needs batches with labels"),
    "a mean": (nn.Linear(3, 2), torch.randn(4, 3), {"likelihood": "gaussian", "labels": "argmax"}, "take 'sampled'"),
    "shares": (nn.Linear(3, 2), (torch.randn(4, 3), torch.eye(2)[[0, 1, 0, 1]]), {}, "add up to 1"),
    "no samples": (nn.Linear(3, 2), torch.randn(0, 3), {}, "no samples"),
    "not finite": (nn.Linear(3, 2), torch.full((4, 3), math.inf), {}, "not finite on these samples"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_told_is_refused_and_changes_nothing(name):
    layer, batch, options, message = REFUSED[name]
    model = nn.Sequential(
        nn.Linear(3 if name != "which are classes" else 4, 3 if name != "which are classes" else 4), layer
    )
    rwalk = rwalk_on(model)
    rwalk.protect(
        [torch.randn(4, 4 if name == "which are classes" else 3)], log_prob=lambda m, x, _: m(x).flatten(1).sum(1)
    )
    before = rwalk.state_dict()
    with pytest.raises(RWalkError, match=message):
        rwalk.protect([batch], **options)
    after = rwalk.state_dict()
    assert {k: v for k, v in before.items() if k != "parameters"} == {
        k: v for k, v in after.items() if k != "parameters"
    }
    for parameter, quantities in before["parameters"].items():
        for quantity, value in quantities.items():
            assert not isinstance(value, torch.Tensor) or torch.equal(value, after["parameters"][parameter][quantity])


def test_a_progress_bar_counts_samples(capsys):
    model = nn.Linear(4, 3)
    RWalk(model, torch.optim.SGD(model.parameters(), lr=0.1)).protect(
        [torch.randn(6, 4), torch.randn(6, 4)], max_samples=10, progress=True
    )
    assert "10/10" in capsys.readouterr().err


@pytest.mark.parametrize("saved", [False, True])
@pytest.mark.parametrize(("combine", "told"), [("replace", 1), ("sum", 0), ("mean", 0), ("max", 0)])
def test_a_task_that_replaces_what_was_protected_is_told_of_once(combine, told, saved, caplog, tmp_path):
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rwalk = RWalk(model, optimizer, RWalkConfig(combine=combine))
    rwalk.protect([torch.randn(6, 4)])
    if saved:
        rwalk.save(tmp_path / "state.safetensors")
        rwalk.detach()
        rwalk = RWalk.load(tmp_path / "state.safetensors", model, optimizer)
    for _ in range(2):
        nn.functional.cross_entropy(model(torch.randn(6, 4)), torch.arange(6) % 3).backward()
        optimizer.step()
        rwalk.consolidate()
    assert sum("replaces the importances that protect() has found" in text for text in caplog.messages) == told


def test_labels_drawn_around_outputs_measure_how_much_weights_move_them():
    """A Gaussian's Fisher is the sum over outputs of squared derivatives, which needs no label at all."""
    torch.manual_seed(0)
    model, x = nn.Linear(3, 2).double(), torch.randn(4, 3).double()
    rwalk = rwalk_on(model)
    rwalk.protect([x.repeat(4000, 1)], likelihood="gaussian")
    expected = x.square().mean(0).expand(2, 3)  # of y = Wx, each output moves by x
    torch.testing.assert_close(rwalk.importances("fisher")["weight"], expected, rtol=0.06, atol=0.0)
