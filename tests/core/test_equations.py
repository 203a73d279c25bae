"""Every equation against a value worked out by hand, or against autograd."""

import pytest
import torch

from rwalk.core import equations as F


def vector(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_the_distance_of_all_parameters_is_the_divergence_of_a_gaussian_family():
    # N(θ, σ²) has Fisher 1/σ² and KL (Δ)²/(2σ²), exactly.
    sigma, moved = 0.7, 0.3
    p, q = torch.distributions.Normal(1.0, sigma), torch.distributions.Normal(1.0 + moved, sigma)
    expected = torch.distributions.kl_divergence(p, q).item()
    assert F.riemannian_distance(vector(1 / sigma**2), vector(moved)).item() == pytest.approx(expected, rel=1e-6)


def test_riemannian_distance_is_each_parameters_share():
    assert F.riemannian_distance(vector(2.0, 0.0, 4.0), vector(3.0, 5.0, -0.5)).tolist() == [9.0, 0.0, 0.5]


@pytest.mark.parametrize(("alpha", "expected"), [(1.0, [9.0, 4.0]), (0.0, [1.0, 2.0]), (0.25, [3.0, 2.5])])
def test_fisher_ema_weighs_the_new_term_by_alpha(alpha, expected):
    assert F.fisher_ema(vector(1.0, 2.0), vector(-3.0, 2.0), alpha).tolist() == expected


def test_loss_change_is_positive_where_the_step_went_downhill():
    downhill_uphill_still = F.loss_change(vector(0.5, 0.5, 0.5), vector(2.0, 2.0, 2.0), vector(0.25, -0.25, 0.0))
    assert downhill_uphill_still.tolist() == [1.0, 0.0, 0.5]


def test_loss_changes_of_small_steps_add_up_to_the_fall_of_the_loss():
    theta, total = vector(2.0, -1.0), torch.zeros(2, dtype=torch.float64)
    curvature = vector(1.0, 3.0)
    first = 0.5 * (curvature * theta**2).sum()
    for _ in range(4000):
        gradient = curvature * theta
        moved = theta - 1e-3 * gradient
        total = F.loss_change(total, gradient, theta - moved)
        theta = moved
    fall = first - 0.5 * (curvature * theta**2).sum()
    assert total.sum().item() == pytest.approx(fall.item(), rel=5e-3)


def test_path_score_is_loss_change_per_distance():
    assert F.path_score(vector(3.0, -1.0, 0.0), vector(1.0, 0.0, 0.0), 0.5).tolist() == [2.0, -2.0, 0.0]
    assert F.path_score(vector(3.0), vector(1.0), torch.tensor(0.5)).tolist() == [2.0]


@pytest.mark.parametrize(
    ("mode", "first", "later"),
    [
        ("mean", [4.0, -2.0], [3.0, 1.0]),
        ("mean_from_zero", [2.0, -1.0], [3.0, 1.0]),
        ("sum", [4.0, -2.0], [6.0, 2.0]),
        ("accumulate", [4.0, -2.0], [5.0, 5.0]),
    ],
)
def test_average_by_mode_in_the_first_and_in_later_tasks(mode, first, later):
    old, new, none_yet = vector(2.0, 4.0), vector(4.0, -2.0), vector(0.0, 0.0)
    assert F.average_scores(none_yet, new, 0, mode).tolist() == first
    assert F.average_scores(old, new, 1, mode).tolist() == later
    assert F.average_scores(old, new, 7, mode).tolist() == later
    if mode != "accumulate":  # old and new weigh the same: their sum is enough
        assert F.average_scores(new, None, 0, mode).tolist() == first
        assert F.average_scores(old + new, None, 1, mode).tolist() == later


def test_fisher_merge_weighs_the_estimate_by_alpha():
    assert F.fisher_merge(vector(1.0, 2.0), vector(5.0, 2.0), 0.25).tolist() == [2.0, 2.0]


def test_euclidean_distance_leaves_the_fisher_out():
    assert F.riemannian_distance(None, vector(3.0, -1.0), 1.0).tolist() == [9.0, 1.0]
    assert F.riemannian_distance(vector(2.0, 4.0), vector(3.0, -1.0), 1.0).tolist() == [18.0, 4.0]


@pytest.mark.parametrize(
    ("mode", "expected"), [("max", [0.25, 0.5, 1.0]), ("minmax", [0.0, 1 / 3, 1.0]), ("none", [1.0, 2.0, 4.0])]
)
def test_scale_by_mode(mode, expected):
    scaled = F.scale(vector(1.0, 2.0, 4.0), torch.tensor(1.0).double(), torch.tensor(4.0).double(), mode)
    assert scaled.tolist() == pytest.approx(expected)


@pytest.mark.parametrize(("mode", "value"), [("max", 0.0), ("minmax", 0.0), ("minmax", 3.0)])
def test_scale_of_an_empty_range_is_zero_and_not_nan(mode, value):
    bound = torch.tensor(value, dtype=torch.float64)
    assert F.scale(vector(value, value), bound, bound, mode).tolist() == [0.0, 0.0]


def test_scale_never_returns_its_input():
    value = vector(1.0)
    F.scale(value, value[0] * 0, value[0] * 1, "none").add_(1.0)
    assert value.tolist() == [1.0]


def test_penalty_has_no_factor_one_half():
    assert F.penalty(vector(1.0, 0.5), vector(3.0, 1.0), vector(1.0, -1.0), 10.0).item() == 10.0 * (4.0 + 2.0)


def test_penalty_gradient_is_autograds():
    torch.manual_seed(0)
    importance, anchor = torch.rand(3, 4).double(), torch.randn(3, 4).double()
    theta = torch.randn(3, 4).double().requires_grad_()
    (expected,) = torch.autograd.grad(F.penalty(importance, theta, anchor, 0.7), theta)
    torch.testing.assert_close(
        F.penalty_gradient(importance, theta.detach(), anchor, 0.7), expected, rtol=1e-14, atol=0
    )


def test_proximal_step_minimises_penalty_plus_squared_distance():
    torch.manual_seed(1)
    importance, anchor, theta = torch.rand(5).double(), torch.randn(5).double(), torch.randn(5).double()
    found = F.proximal_step(importance, theta, anchor, 3.0, 0.2).requires_grad_()
    objective = F.penalty(importance, found, anchor, 3.0) + (found - theta).square().sum() / (2 * 0.2)
    (slope,) = torch.autograd.grad(objective, found)
    assert slope.abs().max() < 1e-13


@pytest.mark.parametrize("strength", [0.0, 1e300])
def test_proximal_step_of_no_and_of_boundless_strength(strength):
    found = F.proximal_step(vector(1.0, 0.0), vector(3.0, 3.0), vector(1.0, 1.0), strength, 0.5)
    assert found.tolist() == [1.0 if strength else 3.0, 3.0]


def test_proximal_step_takes_a_learning_rate_tensor():
    assert F.proximal_step(vector(1.0), vector(3.0), vector(1.0), 0.5, torch.tensor(1.0)).tolist() == [2.0]


A, B, C = vector(0.5, 2.0, 0.0), vector(-1.0, 0.25, 3.0), vector(2.0, -3.0, 1.0)
IN_PLACE = {  # a call on three tensors, and which of them may be `out`
    "riemannian_distance": (lambda a, b, c, **out: F.riemannian_distance(a, b, **out), 1),
    "fisher_ema": (lambda a, b, c, **out: F.fisher_ema(a, b, 0.3, **out), 0),
    "loss_change": (F.loss_change, 0),
    "path_score": (lambda a, b, c, **out: F.path_score(b, a, 0.1, **out), 0),
    "average_scores": (lambda a, b, c, **out: F.average_scores(a, b, 2, "accumulate", **out), 0),
    "average_scores of a sum": (lambda a, b, c, **out: F.average_scores(a, None, 2, **out), 0),
    "fisher_merge": (lambda a, b, c, **out: F.fisher_merge(a, b, 0.3, **out), 0),
    "penalty_gradient": (lambda a, b, c, **out: F.penalty_gradient(a, b, c, 0.7, **out), 1),
    "proximal_step": (lambda a, b, c, **out: F.proximal_step(a, b, c, 0.7, 0.1, **out), 1),
}


@pytest.mark.parametrize("name", IN_PLACE)
def test_out_is_written_in_place_with_the_same_result(name):
    call, alias = IN_PLACE[name]
    inputs = [A.clone(), B.clone(), C.clone()]
    expected = call(*inputs)
    for tensor, original in zip(inputs, (A, B, C), strict=True):
        assert torch.equal(tensor, original), "an input changed although `out` was not given"
    assert all(expected.data_ptr() != tensor.data_ptr() for tensor in inputs)

    apart = torch.full((3,), float("nan"), dtype=torch.float64)
    assert call(*inputs, out=apart) is apart
    assert torch.equal(apart, expected)
    assert call(*inputs, out=inputs[alias]) is inputs[alias]
    assert torch.equal(inputs[alias], expected)
