"""What holds for every shape, setting and history of gradients."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reference.naive import NaiveRWalk
from reference.problems import assert_close, assert_same, assert_same_state, gradients, lists, weights
from reference.strategies import configs, histories
from rwalk import RWalk
from rwalk.core.state import Bucket, Placement, Tracked, arrange

# Not 1e-15: where the terms of ΔL cancel, fewer digits are left.
RELATIVE = 1e-9


def start(history, config, momentum=0.0):
    model = history.model()
    optimizer = torch.optim.SGD(model.parameters(), lr=history.lr, momentum=momentum)
    return model, optimizer, RWalk(model, optimizer, config)


@given(configs(), histories())
def test_accounting_and_penalty_equal_the_twin(config, history):
    model, optimizer, rwalk = start(history, config, momentum=0.9)
    twin = NaiveRWalk(config)
    seen_by_optimizer = []
    optimizer.register_step_pre_hook(lambda *_: seen_by_optimizer.append(gradients(model)))
    for task in history.tasks:
        for step in task:
            history.load(model, step)
            plain, before = lists(gradients(model)), lists(weights(model))
            optimizer.step()
            assert_close(seen_by_optimizer[-1], twin.penalised(plain, before), RELATIVE, "gradient")
            twin.observe(plain, before, lists(weights(model)))
        rwalk.consolidate()
        twin.end_task(lists(weights(model)))
        assert_close(rwalk.importances("fisher"), twin.fisher, RELATIVE, "Fisher")
        assert_close(rwalk.importances("score"), twin.score, RELATIVE, "score")
        if twin.tasks:
            assert_close(rwalk.importances(), twin.importance, RELATIVE, "importance")
            twin_penalty = twin.penalty(lists(weights(model)))
            assert rwalk.penalty().item() == pytest.approx(twin_penalty, rel=RELATIVE, abs=1e-300)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@given(data=st.data())
def test_importances_are_finite_and_within_0_and_2_a_task(dtype, data):
    config = data.draw(configs(scaling=data.draw(st.sampled_from(["max", "minmax"]))))
    history = data.draw(histories(dtype, min_scale=-24, max_scale=4))
    model, optimizer, rwalk = start(history, config)
    summed = len(history.tasks) if config.combine == "sum" else 1
    for task in history.tasks:
        for step in task:
            history.load(model, step)
            if config.penalty == "gradient" and history.lr * config.ewc_lambda > 0.25 / summed:
                optimizer.param_groups[0]["lr"] = 0.0  # beyond the explicit step's stability
            optimizer.step()
        rwalk.consolidate()
        for importance in rwalk.importances().values():
            assert bool(((importance >= 0) & (importance <= 2 * summed)).all()), importance
        assert torch.isfinite(rwalk.penalty())
        assert all(bool(torch.isfinite(parameter).all()) for parameter in model.parameters())


@given(configs(penalty="gradient"), histories())
def test_added_gradient_is_autograds_of_the_penalty(config, history):
    model, optimizer, rwalk = start(history, config)
    history.load(model, [torch.ones_like(value) for value in history.start])
    optimizer.step()
    rwalk.consolidate()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.linspace(-1, 2, parameter.numel(), dtype=torch.float64).view(parameter.shape))
    expected = torch.autograd.grad(rwalk.penalty(), list(model.parameters()))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    rwalk.detach()
    rwalk.before_step()
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-14, atol=0.0)


FROM_LAST = configs(penalty="proximal", scaling="none", combine="replace", anchor_at="last")


@given(FROM_LAST, histories(min_scale=-3, max_scale=6))
def test_proximal_step_stays_between_weight_and_anchor(config, history):
    model, optimizer, rwalk = start(history, config.replace(ewc_lambda=1e6))
    for task in history.tasks:
        anchors = weights(model)
        for step in task:
            history.load(model, step)
            before, given_gradients = weights(model), gradients(model)
            optimizer.step()
            for name, after in weights(model).items():
                free = before[name] - history.lr * given_gradients.get(name, torch.zeros(()))
                low, high = torch.minimum(free, anchors[name]), torch.maximum(free, anchors[name])
                slack = 1e-12 * (1 + low.abs().maximum(high.abs()))
                inside = (after >= low - slack) & (after <= high + slack)
                if rwalk.tasks and name in rwalk.importances():
                    assert bool(inside.all()), (free, after, anchors[name])
        rwalk.consolidate()


@given(st.lists(st.tuples(*[st.integers(1, 4)] * 2), min_size=1, max_size=4), st.data())
def test_arranging_anew_keeps_the_overlapping_block_and_zeroes_the_rest(old_shapes, data):
    cpu = torch.device("cpu")
    listed = [Tracked(f"p{i}", torch.nn.Parameter(torch.zeros(1))) for i in range(len(old_shapes))]
    bucket = Bucket(cpu, torch.float32, {p: torch.Size(s) for p, s in zip(listed, old_shapes, strict=True)})
    bucket.require("fisher")[0].copy_(torch.arange(1, bucket.size + 1))
    old = {parameter: bucket.view(parameter, "fisher").clone() for parameter in listed}
    new_shapes = [data.draw(st.tuples(*[st.integers(1, 4)] * 2)) for _ in old_shapes]
    dtypes = [data.draw(st.sampled_from([torch.float32, torch.float64])) for _ in old_shapes]
    needed = {p: Placement(torch.Size(new_shapes[i]), cpu, dtypes[i]) for i, p in enumerate(listed)}
    result = arrange([bucket], needed, compact=False)
    found = {p: (b, b.view(p, "fisher")) for b in result for p in b.starts}
    assert set(found) == set(old)
    for i, (parameter, before) in enumerate(old.items()):
        home, view = found[parameter]
        expected = torch.zeros(new_shapes[i], dtype=dtypes[i])
        rows, columns = (min(a, b) for a, b in zip(before.shape, new_shapes[i], strict=True))
        expected[:rows, :columns] = before[:rows, :columns]
        assert home.dtype is dtypes[i]
        assert torch.equal(view, expected)


@given(configs(ewc_lambda=0.5, scaling="max"), histories(torch.float32), st.data())
def test_a_run_goes_on_bit_for_bit_from_its_state_dict_at_any_step(config, history, data):
    steps = [(task, step) for task, listed in enumerate(history.tasks) for step in range(len(listed))]
    stop = data.draw(st.sampled_from([*steps, None]))
    model, optimizer, rwalk = start(history, config)
    copy = copied_optimizer = resumed = None
    for task, listed in enumerate(history.tasks):
        for index, step in enumerate(listed):
            if (task, index) == stop:
                copy = history.model()
                copy.load_state_dict(model.state_dict())
                copied_optimizer = torch.optim.SGD(copy.parameters(), lr=history.lr)
                resumed = RWalk(copy, copied_optimizer, config)
                resumed.load_state_dict(rwalk.state_dict())
            for each, its_optimizer in ((model, optimizer), (copy, copied_optimizer)):
                if each is not None:
                    history.load(each, step)
                    its_optimizer.step()
        for each in (rwalk, resumed):
            if each is not None:
                each.consolidate()
    if resumed is not None:
        assert_same(weights(copy), weights(model))
        assert_same_state(resumed.state_dict(), rwalk.state_dict())
