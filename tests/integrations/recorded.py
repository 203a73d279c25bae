"""Any training, written down step by step for the naive twin: the accounting must be that of the steps as they were."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from reference.naive import NaiveRWalk
from reference.problems import assert_close, gradients, lists, weights
from rwalk import RWalk, RWalkConfig

CONFIG = RWalkConfig(ewc_lambda=0.5, ewc_alpha=0.3, delta_t=3)


class Recorded:
    """An RWalk and a twin beside it.

    Args:
        model: What is trained.
        optimizer: With what.
        config: Settings of both.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, config: RWalkConfig = CONFIG) -> None:
        self.model = model
        self.rwalk, self.twin = RWalk(model, optimizer, config), NaiveRWalk(config, floor=2.0**-103)

    def step(self, step: Callable[[], object], scale: float = 1.0) -> None:
        """Take a step by ``step``, with the gradients that are there, multiplied by ``scale``."""
        plain = lists({name: gradient.double() / scale for name, gradient in gradients(self.model).items()})
        before = lists(weights(self.model))
        step()
        self.twin.observe(plain, before, lists(weights(self.model)))

    def end_task(self) -> None:
        """Consolidate both."""
        self.compare()
        self.rwalk.consolidate()
        self.twin.end_task(lists(weights(self.model)))
        self.compare()

    def compare(self, relative: float = 1e-5) -> None:
        """State in float32 is the twin's in float64, but for rounding."""
        assert_close(self.rwalk.importances("fisher"), self.twin.fisher, relative, "Fisher")
        assert_close(self.rwalk.importances("score"), self.twin.score, relative, "score")
        if self.twin.tasks:
            assert_close(self.rwalk.importances("penalty"), self.twin.importance, relative, "importance")
            theta = lists(weights(self.model))
            found, expected = self.rwalk.penalty().item(), self.twin.penalty(theta)
            assert abs(found - expected) <= relative * expected
