"""GradScaler: scaled gradients, and steps that are skipped (the second half of trap 7)."""

import pytest
import torch
from torch import nn

from reference.problems import assert_same, assert_same_state, batches, gradients, tanh_net, weights
from rwalk import RWalk, RWalkConfig

SCALE = 2.0**10  # a power of two: scaling and unscaling are exact
# Fused SGD has no momentum here: torch leaves the momentum buffer uninitialised if the very first step is skipped.
OPTIMIZERS = {
    "fused adam": lambda p: torch.optim.Adam(p, lr=0.01, fused=True),
    "fused adamw": lambda p: torch.optim.AdamW(p, lr=0.01, fused=True),
    "fused sgd": lambda p: torch.optim.SGD(p, lr=0.05, fused=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
}


class Run:
    def __init__(self, optimizer_name, penalty, scaled):
        self.model = tanh_net(dtype=torch.float32)
        self.optimizer = OPTIMIZERS[optimizer_name](self.model.parameters())
        self.rwalk = RWalk(self.model, self.optimizer, RWalkConfig(ewc_lambda=1.0, delta_t=4, penalty=penalty))
        self.scaler = torch.amp.GradScaler("cpu", init_scale=SCALE, enabled=scaled)

    def step(self, x, y, *, overflow=False, unscale_first=False):
        self.optimizer.zero_grad()
        self.scaler.scale(nn.functional.mse_loss(self.model(x), y)).backward()
        if overflow:
            self.model[2].bias.grad[0] = float("inf")
        if unscale_first:
            self.scaler.unscale_(self.optimizer)
        self.scaler.step(self.optimizer)
        if not overflow:
            self.scaler.update()
        else:
            self.scaler.update(SCALE)  # as it was, so that the runs stay comparable

    def train(self, task, steps=6, **how):
        for x, y in batches(task, steps, torch.float32):
            self.step(x, y, **how)


@pytest.mark.parametrize("unscale_first", [False, True])
@pytest.mark.parametrize("penalty", ["gradient", "proximal"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_scaled_training_equals_unscaled_bit_for_bit(name, penalty, unscale_first):
    plain, scaled = Run(name, penalty, scaled=False), Run(name, penalty, scaled=True)
    for task in range(3):
        plain.train(task)
        scaled.train(task, unscale_first=unscale_first)
        plain.rwalk.consolidate()
        scaled.rwalk.consolidate()
    assert_same(weights(scaled.model), weights(plain.model))
    assert_same_state(scaled.rwalk.state_dict(), plain.rwalk.state_dict())
    assert plain.rwalk.importances("score")["0.weight"].abs().sum() > 0


@pytest.mark.parametrize("unscale_first", [False, True])
@pytest.mark.parametrize("penalty", ["gradient", "proximal"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_skipped_for_inf_leaves_no_trace(name, penalty, unscale_first):
    clean, shaken = Run(name, penalty, scaled=True), Run(name, penalty, scaled=True)
    x, y = next(batches(9, 1, torch.float32))
    for task in range(2):
        for part in range(3):
            clean.train(task + part, steps=3)
            before = shaken.rwalk.steps
            shaken.step(x, y, overflow=True, unscale_first=unscale_first)  # the first step of all is one, too
            assert shaken.rwalk.steps == before
            shaken.train(task + part, steps=3)
        clean.rwalk.consolidate()
        shaken.rwalk.consolidate()
    assert_same(weights(shaken.model), weights(clean.model))
    assert_same_state(shaken.rwalk.state_dict(), clean.rwalk.state_dict())


def test_a_fused_fisher_is_that_of_unscaled_gradients():
    run = Run("fused adam", "gradient", scaled=True)
    x, y = next(batches(0, 1, torch.float32))
    nn.functional.mse_loss(run.model(x), y).backward()
    plain = gradients(run.model)
    run.step(x, y)
    assert_same(run.rwalk.importances("fisher"), {name: value**2 for name, value in plain.items()})


def test_state_can_be_saved_after_nothing_but_skipped_steps(tmp_path, caplog):
    run = Run("fused sgd", "gradient", scaled=True)
    x, y = next(batches(0, 1, torch.float32))
    run.step(x, y, overflow=True)
    run.rwalk.consolidate()
    assert "nothing changes" in caplog.text
    run.rwalk.save(tmp_path / "state.safetensors")
    resumed = Run("fused sgd", "gradient", scaled=True)
    resumed.rwalk.detach()
    other = RWalk.load(tmp_path / "state.safetensors", resumed.model, resumed.optimizer)
    for each in (run, resumed):
        each.train(0, steps=5)
    assert_same_state(other.state_dict(), run.rwalk.state_dict())
