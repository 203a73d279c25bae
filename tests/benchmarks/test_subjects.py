"""What is measured is what its name says."""

import doctest
import importlib
import re

import pytest
import torch
from benchmarks.bare_core import core, core_visit
from benchmarks.cases import CASES, OPTIMIZERS
from benchmarks.models import size
from benchmarks.subjects import attached, check_finite, past_first_task, plain_loop
from benchmarks.tensors import MemoryTrace, own_bytes
from benchmarks.traffic import floats_per_parameter
from torch import nn

UNITS = {"k": 1e3, "m": 1e6}


@pytest.mark.parametrize("name", ["models", "table", "tensors", "timing", "traffic"])
def test_examples_in_docstrings(name):
    failed, tried = doctest.testmod(importlib.import_module(f"benchmarks.{name}"))
    assert (failed, tried > 0) == (0, True)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_cases_have_the_size_in_their_name(case):
    number, unit = re.search(r"_(\d+)([km])", case.name).groups()
    with torch.device("meta"):
        model = case.build()
        x, y = case.batches(1)[0]
        assert model(x).shape == (case.batch_size, case.classes)
    assert y.shape == (case.batch_size,)
    assert size(model) == pytest.approx(int(number) * UNITS[unit], rel=0.1)
    assert case.steps % 10 == 0


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_turn_with_rwalk_takes_steps_with_the_penalty_acting_and_leaves_no_trace_in_the_others(optimizer):
    model = nn.Linear(4, 3)
    batches = [(torch.randn(2, 4), torch.tensor([0, 2]))]
    optimizer = OPTIMIZERS[optimizer](model)
    run = plain_loop(model, optimizer, batches)
    rwalk, first = past_first_task(model, optimizer, run, backend="eager")
    assert (rwalk.tasks, rwalk.backend, rwalk.attached, first > 0) == (1, "eager", False, True)
    before, started = rwalk.steps, float(rwalk.penalty().detach())
    attached(rwalk, lambda: float(run(5) is None), 5)()
    assert rwalk.steps == before + 5
    run(5)
    assert rwalk.steps == before + 5
    assert float(rwalk.penalty().detach()) > started


def test_the_core_alone_steps_with_its_gradients_unchanged():
    rwalk = core(1_000_000, backend="eager")
    gradients = [parameter.grad.clone() for parameter in rwalk.model.parameters()]
    before = rwalk.steps
    assert core_visit(rwalk, 3, torch.zeros(10))() > 0
    assert rwalk.steps == before + 4
    for parameter, gradient in zip(rwalk.model.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=0, atol=0)


def test_figures_of_a_network_that_diverged_are_refused():
    model = nn.Linear(2, 2)
    check_finite(model)
    model.bias.data[0] = torch.inf
    with pytest.raises(RuntimeError, match="bias is not finite after the measurement"):
        check_finite(model)


def test_own_bytes_are_those_beside_the_network_the_gradients_and_the_optimizer():
    model = nn.Linear(100, 100)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.ones(1, 100)).sum().backward()
    optimizer.step()
    before = own_bytes(model, optimizer)
    kept = torch.zeros(500)
    views = [kept[:100], kept.view(5, 100)]
    assert own_bytes(model, optimizer) - before == 2000
    assert own_bytes(model, optimizer, [views[0]]) == before


def test_a_peak_is_the_most_alive_at_one_time_whatever_is_released_before():
    with MemoryTrace() as trace:
        old = torch.zeros(5000)
        with trace.mark("released first"):
            del old
            torch.zeros(1000)
            torch.zeros(1500)
        with trace.mark("nothing"):
            pass
    assert trace.peaks == {"released first": 20_000, "nothing": 0}


def test_a_step_moves_13_floats_and_a_window_4_more():
    assert floats_per_parameter(2) == 13 + 4 / 2
    assert floats_per_parameter(10**9) == pytest.approx(13)
