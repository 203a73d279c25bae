"""The equations have one home: who changes one in Python changes the kernels."""

import inspect
from functools import cache

import pytest
import torch

from core.kernels import needs_compiler
from rwalk import RWalk, RWalkConfig
from rwalk.core import functional as F
from rwalk.core.native import invocation
from rwalk.core.native.source import SUPPORTED, program

pytestmark = needs_compiler


@pytest.mark.parametrize("types", SUPPORTED)
def test_a_changed_equation_changes_every_program(types, monkeypatch):
    before = program(types)
    assert program(types) == before
    for name in ("penalty_gradient", "loss_change", "fisher_ema", "riemannian_distance", "path_score", "proximal_step"):
        with monkeypatch.context() as patch:
            patch.setattr(F, name, changed(getattr(F, name)))
            assert program(types) != before, name


def changed(function):
    def twice(**arguments):
        return function(**arguments).mul_(2.0)

    twice.__signature__ = inspect.signature(function)
    twice.__name__ = function.__name__
    return twice


def test_a_changed_equation_changes_what_the_kernels_do(monkeypatch, tmp_path):
    added = []
    for change in (False, True):
        if change:
            monkeypatch.setenv("RWALK_CACHE_DIR", str(tmp_path))
            monkeypatch.setattr(invocation, "library", cache(invocation.library.__wrapped__))
            monkeypatch.setattr(F, "penalty_gradient", changed(F.penalty_gradient))
        model = torch.nn.ParameterDict({"p": torch.nn.Parameter(torch.ones(3))})
        rwalk = RWalk(model, torch.optim.SGD(model.parameters(), lr=0.1), RWalkConfig(backend="fused"), attach=False)
        for anchor in (1.0, 2.0):
            model["p"].data.fill_(anchor)
            model["p"].grad = torch.ones(3)
            rwalk.before_step()
            rwalk.after_step()
            rwalk.consolidate()
        model["p"].data.fill_(4.0)
        model["p"].grad = torch.zeros(3)
        rwalk.before_step()
        added.append(model["p"].grad)
    assert bool((added[0] > 0).all())
    assert torch.equal(added[1], 2 * added[0])
