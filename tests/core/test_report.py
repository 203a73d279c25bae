"""``report``, ``repr``, the picture: figures equal a naive computation, nothing changes, each warning has its cause."""

import copy
import re

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_flatten

from core.reported import network, train, walked
from rwalk import RWalk, RWalkConfig, RWalkError

BACKENDS = pytest.mark.parametrize("backend", ["fused", "eager"])


def naive(model, importances, anchors, gradients, weights, lam):
    """Per layer: share, distance, drift, penalty, ratio, by autograd in float64."""
    total = sum(float(value.sum()) for value in importances.values())
    found = {}
    for layer in ("0", "2"):
        names = [f"{layer}.weight", f"{layer}.bias"]
        there = {name: weights[name].clone().requires_grad_() for name in names}
        penalty = sum((importances[n] * (there[n] - anchors[n]) ** 2).sum() for n in names) * lam
        pull = torch.autograd.grad(penalty, list(there.values()))
        pull_norm = sum(float(p.square().sum()) for p in pull) ** 0.5
        norm = sum(float(gradients[n].square().sum()) for n in names) ** 0.5
        now = {name: p.detach() for name, p in model.named_parameters()}
        distance = sum(float((now[n] - anchors[n]).square().sum()) for n in names) ** 0.5
        found[layer] = {
            "importance": sum(float(importances[n].sum()) for n in names) / total,
            "distance": distance,
            "drift": distance / sum(float(anchors[n].square().sum()) for n in names) ** 0.5,
            "penalty": float(sum((importances[n] * (now[n] - anchors[n]) ** 2).sum() for n in names) * lam),
            "ratio": pull_norm / norm,
        }
    return found


@BACKENDS
def test_figures_equal_a_naive_computation(backend):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    rwalk = RWalk(model, optimizer, RWalkConfig(backend=backend, ewc_lambda=0.5))
    train(model, optimizer, 30)
    rwalk.consolidate()
    anchors = {name: p.detach().clone() for name, p in model.named_parameters()}
    kept = {}

    def before_rwalk(*_):
        kept["weights"] = {name: p.detach().clone() for name, p in model.named_parameters()}
        kept["gradients"] = {name: p.grad.clone() for name, p in model.named_parameters()}

    rwalk.detach()
    optimizer.register_step_pre_hook(before_rwalk)  # which runs first, on the loss's own gradient
    rwalk.attach()
    train(model, optimizer, 12, seed=1, shift=1.0)
    report = rwalk.report()
    expected = naive(model, rwalk.importances(), anchors, kept["gradients"], kept["weights"], 0.5)
    assert [layer.name for layer in report.layers] == ["0", "2"]
    for layer in report.layers:
        for name, value in expected[layer.name].items():
            assert getattr(layer, name) == pytest.approx(value, rel=1e-9), (layer.name, name)
    assert [layer.weights for layer in report.layers] == [42, 24]
    assert report.total.penalty == pytest.approx(float(rwalk.penalty().detach()), rel=1e-12)
    values = torch.cat([value.flatten() for value in rwalk.importances().values()])
    assert report.total.held == pytest.approx(float((values >= values.max() / 10).double().mean()))
    assert report.lambda_at_balance == pytest.approx(0.5 / report.total.ratio)

    rwalk.settle()  # the step is in the state: the same gradient, the weights as they are now
    kept["weights"] = {name: p.detach() for name, p in model.named_parameters()}
    settled = rwalk.report()
    now = naive(model, rwalk.importances(), anchors, kept["gradients"], kept["weights"], 0.5)
    for layer in settled.layers:
        assert layer.ratio == pytest.approx(now[layer.name]["ratio"], rel=1e-9)


@BACKENDS
def test_a_report_changes_nothing(backend):
    ends = []
    for asks in (False, True):
        model, optimizer, rwalk, _ = walked(backend, steps=3)
        for seed in range(5):
            if asks:
                rwalk.report()
                repr(rwalk)
            train(model, optimizer, 1, seed=seed)
        ends.append((rwalk.state_dict(), [p.detach() for p in model.parameters()]))
    (state, weights), (other, others) = ends
    assert all(torch.equal(one, two) for one, two in zip(weights, others, strict=True))
    (leaves, tree), (others, other_tree) = map(tree_flatten, (state, other))
    assert tree == other_tree
    for one, two in zip(leaves, others, strict=True):
        assert torch.equal(one, two) if isinstance(one, torch.Tensor) else one == two


def test_it_asks_for_no_forward_and_no_backward_pass():
    model, _, rwalk, _ = walked()
    calls = []
    model.register_forward_hook(lambda *_: calls.append("forward"))
    gradients = [p.grad.clone() for p in model.parameters()]
    rwalk.report()
    assert not calls
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), gradients, strict=True))


def test_printed_it_fits_a_terminal_and_tells_the_loss_share():
    _, _, rwalk, loss = walked()
    report = rwalk.report(loss)
    assert report.loss_share == pytest.approx(report.total.penalty / (report.total.penalty + float(loss.detach())))
    assert "of loss and penalty" in str(report)
    assert max(map(len, str(report).splitlines())) <= 80
    assert report.metrics()["rwalk/gradient_ratio"] == report.total.ratio


@pytest.mark.parametrize("loss", [float("nan"), -1.0, torch.ones(3), torch.tensor([]), "a", "3", 1j, object()])
def test_a_loss_that_is_none_is_named(loss):
    _, _, rwalk, _ = walked()
    with pytest.raises(ValueError, match=rf"loss={re.escape(repr(loss))}: expected the loss .* a finite number ≥ 0"):
        rwalk.report(loss)


def test_many_layers_are_cut_short():
    model = nn.Sequential(*[nn.Linear(2, 2) for _ in range(30)])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rwalk = RWalk(model, optimizer)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    rwalk.consolidate()
    report = rwalk.report()
    assert len(report.layers) == 30
    assert "… and 18 layers with less" in str(report)


# --- warnings -------------------------------------------------------------------------------------------------------


def only(report):
    """The one warning there is."""
    (warning,) = report.warnings
    return warning


def test_warning_never_consolidated():
    model = network()
    optimizer = torch.optim.Adam(model.parameters())
    rwalk = RWalk(model, optimizer)
    train(model, optimizer, 3)
    assert "nothing is protected yet" in only(rwalk.report())


def test_nothing_is_warned_of_in_a_sound_training():
    _, _, rwalk, _ = walked(ewc_lambda=1.0)
    assert rwalk.report().warnings == ()


def test_warning_no_effect():
    _, _, rwalk, _ = walked(ewc_lambda=1e-6)
    report = rwalk.report()
    assert "has no effect" in only(report)
    assert f"{report.lambda_at_balance:.3g} would make them equal" in only(report)


def test_warning_choking():
    _, _, rwalk, _ = walked(ewc_lambda=1e5)
    assert "chokes the new task" in only(rwalk.report())


def test_no_ratio_is_judged_at_the_first_steps():
    _, _, rwalk, _ = walked(steps=2, ewc_lambda=1e-6)
    assert rwalk.report().warnings == ()


def test_warning_lambda_zero():
    _, _, rwalk, _ = walked(ewc_lambda=0.0)
    assert "ewc_lambda is 0" in only(rwalk.report())


def test_warning_every_importance_is_zero():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rwalk = RWalk(model, optimizer)
    (0.0 * model(torch.ones(1, 5, dtype=torch.float64)).sum()).backward()
    optimizer.step()
    rwalk.consolidate()
    assert "every importance is 0" in only(rwalk.report())


def test_warning_unstable_explicit_step():
    _, _, rwalk, _ = walked(optimizer=torch.optim.SGD, lr=0.01, steps=0, ewc_lambda=1e3)
    assert "too strong for a step of SGD" in only(rwalk.report())


def test_warning_outputs_were_added():
    model, optimizer, rwalk, _ = walked(steps=0)
    small = rwalk.state_dict()
    with torch.no_grad():
        for name in ("weight", "bias"):
            old = getattr(model[2], name)
            old.set_(torch.cat([old.detach(), torch.zeros_like(old)]))
            old.grad = None
    optimizer.state.clear()
    train(model, optimizer, 3)
    assert "'2.weight' has grown since the last task" in only(rwalk.report())
    rwalk.load_state_dict(small, strict=False)
    train(model, optimizer, 3)
    assert "'2.weight' has grown since the last task" in only(rwalk.report())
    rwalk.consolidate()
    train(model, optimizer, 3)
    assert not any("has grown" in warning for warning in rwalk.report().warnings)


def test_warning_another_copy_is_trained():
    model, _, rwalk, _ = walked(steps=0)
    twin = copy.deepcopy(model)
    optimizer = torch.optim.Adam(twin.parameters())
    assert rwalk.report().warnings == ()  # nobody has trained it
    train(twin, optimizer, 2)
    assert "an optimizer (Adam) trains weights that are nearly this model's" in only(rwalk.report())


def test_warning_another_optimizer_moves_the_weights():
    model, _, rwalk, _ = walked(steps=0)
    rwalk.detach()  # while it is attached, the step itself is refused
    other = torch.optim.SGD(model.parameters(), lr=0.1)
    train(model, other, 2)
    assert "another optimizer (SGD) moves the model's weights" in only(rwalk.report())


def test_warning_weights_moved_unseen():
    model, optimizer, rwalk, _ = walked(steps=0)
    optimizer.zero_grad()
    with torch.no_grad():
        model[0].weight.add_(1.0)
    assert "'0.weight' has moved since the last task ended and no step was seen" in only(rwalk.report())


def test_a_callers_hints_join():
    _, _, rwalk, _ = walked(ewc_lambda=1.0)
    assert rwalk.report(hints=["mind the gap"]).warnings == ("mind the gap",)


# --- repr, picture --------------------------------------------------------------------------------------------------


def test_repr_tells_backend_tasks_share_and_strength():
    _, _, rwalk, _ = walked("eager")
    assert repr(rwalk).startswith("RWalk(Sequential, backend=eager, tasks=1, steps=42, held=")
    assert f"held={rwalk.report().total.held:.1%} of the weights, ewc_lambda=0.5)" in repr(rwalk)
    rwalk.load_state_dict(rwalk.state_dict())
    assert "tasks=1" in repr(rwalk)
    model = network()
    assert "tasks=0, steps=0, held=0.0%" in repr(RWalk(model, torch.optim.Adam(model.parameters())))


def test_picture():
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("agg")
    _, _, rwalk, _ = walked()
    axes = rwalk.plot_importances()
    shares = {layer.name: 100 * layer.importance for layer in rwalk.report().layers}
    assert sorted(bar.get_width() for bar in axes.patches) == pytest.approx(sorted(shares.values()))
    heaviest = max(shares, key=lambda name: shares[name])
    assert axes.get_title(loc="left") == f"{heaviest!r} carries {shares[heaviest]:.0f} % of the importance"
    pyplot.close(axes.figure)
    model = network()
    fresh = RWalk(model, torch.optim.Adam(model.parameters()))
    with pytest.raises(RWalkError, match="no importance to draw"):
        fresh.plot_importances()
