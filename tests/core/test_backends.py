"""Eager and fused code compute the same, and each what the naive twin does."""

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from core.kernels import needs_compiler
from reference.naive import NaiveRWalk
from reference.problems import assert_close, gradients, lists, weights
from reference.replay import distance, follow, train
from reference.strategies import configs, histories
from rwalk import RWalk, RWalkConfig

pytestmark = needs_compiler

# Between the backends nothing differs but where torch fuses a product into a sum: a few roundings in a row.
BOUNDS = {torch.float64: 1e-14, torch.float32: 1e-6, torch.bfloat16: 1e-6}
# What is stored in bfloat16 is one of two neighbours, 2⁻⁷ apart: a last digit may decide which.
COMPACT = 2.0**-6


@pytest.fixture(autouse=True)
def _quiet(caplog):
    """Random histories make for many warnings of idle tasks."""
    caplog.set_level("ERROR", logger="rwalk")


@st.composite
def finite(draw, scalings=("max", "max", "none"), **fixed):
    """Configs whose runs do not overflow. Minimum-maximum scaling loses digits, alike in all backends: not here."""
    scaling = draw(st.sampled_from(scalings))
    if scaling == "none":
        fixed["penalty"] = "proximal"  # no strength makes it diverge
    return draw(configs(scaling=scaling, **fixed))


@pytest.mark.parametrize("dtype", BOUNDS)
@given(data=st.data())
def test_fused_is_eager(dtype, data):
    config, history = data.draw(finite()), data.draw(histories(dtype))
    fused, eager = (follow(history, config.replace(backend=name)) for name in ("fused", "eager"))
    assert distance(fused, eager) <= BOUNDS[dtype]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@given(data=st.data())
def test_fused_is_eager_in_compact_state(dtype, data):
    config, history = data.draw(finite(state_dtype="bfloat16")), data.draw(histories(dtype))
    fused, eager = (follow(history, config.replace(backend=name)) for name in ("fused", "eager"))
    assert distance(fused, eager) <= COMPACT


@pytest.mark.parametrize("scale", [None, 3.7])
@pytest.mark.parametrize("delta_t", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compact_state_is_rounded_by_the_same_dice_in_both_backends(dtype, delta_t, scale):
    start = [torch.randn(50_000, generator=torch.Generator().manual_seed(0)).to(dtype)]
    config = RWalkConfig(ewc_lambda=1.0, ewc_alpha=0.1, delta_t=delta_t, damping=1e-4, state_dtype="bfloat16")
    fused, eager = (train(start, config.replace(backend=name), scale=scale) for name in ("fused", "eager"))
    assert distance(fused, eager) <= COMPACT
    for quantity in ("fisher", "score", "importance"):
        unlike = (fused[quantity][-1] != eager[quantity][-1]).double().mean()
        assert unlike < 1e-3, quantity  # with dice of their own, half of all elements


@pytest.mark.parametrize("backend", ["eager", "fused"])
@given(finite(["max", "minmax", "none"]), histories())
def test_each_backend_equals_the_twin(backend, config, history):
    model = history.model()
    optimizer = torch.optim.SGD(model.parameters(), lr=history.lr, momentum=0.9)
    rwalk, twin, given_gradients = RWalk(model, optimizer, config.replace(backend=backend)), NaiveRWalk(config), []
    optimizer.register_step_pre_hook(lambda *_: given_gradients.append(gradients(model)))
    for task in history.tasks:
        for step in task:
            history.load(model, step)
            plain, before = lists(gradients(model)), lists(weights(model))
            optimizer.step()
            assert_close(given_gradients[-1], twin.penalised(plain, before), 1e-9, "gradient")
            twin.observe(plain, before, lists(weights(model)))
        rwalk.consolidate()
        twin.end_task(lists(weights(model)))
        assert_close(rwalk.importances("fisher"), twin.fisher, 1e-9, "Fisher")
        assert_close(rwalk.importances("score"), twin.score, 1e-9, "score")
        if twin.tasks:
            assert_close(rwalk.importances(), twin.importance, 1e-9, "importance")


@pytest.mark.parametrize("state_dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("delta_t", [1, 3])
@pytest.mark.parametrize("penalty", ["gradient", "proximal"])
@settings(max_examples=25)
@given(st.sampled_from([math.inf, -math.inf, math.nan, 3e38]), st.integers(0, 6))
def test_what_is_not_finite_enters_no_backends_state(state_dtype, delta_t, penalty, value, when):
    config = RWalkConfig(ewc_lambda=0.5, delta_t=delta_t, penalty=penalty, state_dtype=state_dtype)
    found = []
    for backend in ("fused", "eager"):
        model = torch.nn.ParameterDict({"p": torch.nn.Parameter(torch.ones(5))})
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        rwalk = RWalk(model, optimizer, config.replace(backend=backend))
        for step in range(7):
            if step == 3 and when >= 3:
                rwalk.consolidate()
            model["p"].grad = torch.linspace(-1, 1, 5)
            before = model["p"].detach().clone()
            if step == when:
                model["p"].grad[1] = value
            optimizer.step()
            if step == when:
                model["p"].data.copy_(before)
        assert (rwalk.steps, rwalk.skipped) == (6, 1)  # whole steps are left out, not elements
        found.append({k: v for k, v in rwalk.state_dict()["parameters"]["p"].items() if isinstance(v, torch.Tensor)})
    for quantity, fused in found[0].items():
        assert bool(fused.isfinite().all()), quantity
        torch.testing.assert_close(fused, found[1][quantity], equal_nan=True, rtol=1e-6, atol=1e-6)


@given(finite(), histories(torch.float32))
def test_the_comparison_can_fail(config, history):
    assume(sum(map(len, history.tasks)) > 0)
    assume(any(g is not None and g.any() for task in history.tasks for step in task for g in step))
    other = config.replace(ewc_alpha=0.75, fisher_start="zero", alpha_warmup=False, fisher_every=1)
    third = other.replace(ewc_alpha=0.25)
    assert distance(follow(history, other), follow(history, third)) > 1e-3
