"""State files: complete or absent, refused when they do not fit, and exact."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from core.saved import CONFIG, learned_walk, walk
from reference.problems import assert_same, assert_same_state, batches, tanh_net, train, weights
from rwalk import RWalk, RWalkConfig, RWalkError, inspect_state
from rwalk.core import container


@pytest.fixture
def learned():
    return learned_walk()


@pytest.fixture
def saved(learned, tmp_path):
    learned[2].save(tmp_path / "state.safetensors")
    return tmp_path / "state.safetensors"


def test_loading_restores_state_and_config(learned, saved):
    model, _, rwalk = learned
    fresh = tanh_net(seed=5, dtype=torch.float32)
    fresh.load_state_dict(model.state_dict())
    loaded = RWalk.load(saved, fresh, torch.optim.Adam(fresh.parameters()))
    assert loaded.config == CONFIG
    assert loaded.attached
    assert_same_state(loaded.state_dict(), rwalk.state_dict())
    assert loaded.penalty().item() == rwalk.penalty().item() > 0


def test_loading_with_another_config_keeps_the_other(saved):
    model = tanh_net(dtype=torch.float32)
    loaded = RWalk.load(saved, model, torch.optim.Adam(model.parameters()), RWalkConfig(delta_t=7), attach=False)
    assert loaded.config == RWalkConfig(delta_t=7)
    assert not loaded.attached


@pytest.mark.parametrize(
    "config",
    [
        CONFIG,
        CONFIG.replace(damping_scale="relative"),
        CONFIG.replace(alpha_warmup=True, ewc_alpha=0.02),
        RWalkConfig.agem(delta_t=4, fisher_every=3),
        RWalkConfig.avalanche(delta_t=5),
    ],
)
@pytest.mark.parametrize("stop", [6, 12, 13, 22])  # inside a window, between windows, inside a task
def test_training_goes_on_bit_for_bit_through_a_file(config, stop, tmp_path):
    model, optimizer, rwalk = walk(config=config)
    model[0].weight.requires_grad_(False)  # joins at step 3: the state's order is then not the model's
    data = [batch for task in range(3) for batch in batches(task, 12, torch.float32)]
    for index, (x, y) in enumerate(data):
        if index == 3:
            model[0].weight.requires_grad_(True)
        if index == stop:
            rwalk.save(tmp_path / "state")
            other, its_optimizer, its_walk = walk(config=config)
            other.load_state_dict(model.state_dict())
            its_optimizer.load_state_dict(deepcopy(optimizer.state_dict()))
            its_walk.detach()
            its_walk = RWalk.load(tmp_path / "state", other, its_optimizer)
        for each, at in ((model, optimizer), (other, its_optimizer)) if index >= stop else ((model, optimizer),):
            at.zero_grad()
            nn.functional.mse_loss(each(x), y).backward()
            at.step()
        if index % 12 == 11:
            rwalk.consolidate()
            if index >= stop:
                its_walk.consolidate()
    assert_same(weights(other), weights(model))
    assert_same_state(its_walk.state_dict(), rwalk.state_dict())


def test_inspecting_reads_all_but_the_tensors(saved):
    found = inspect_state(saved)
    assert RWalkConfig.from_dict(found["config"]) == CONFIG
    assert (found["schema"], found["tasks"], found["steps"], found["window_steps"]) == (2, 1, 16, 2)
    assert set(found["parameters"]) == {"0.weight", "0.bias", "2.weight", "2.bias"}
    assert not any(isinstance(v, torch.Tensor) for entry in found["parameters"].values() for v in entry.values())


def test_saving_between_the_halves_of_a_step_is_refused(tmp_path):
    model = tanh_net()
    rwalk = RWalk(model, torch.optim.SGD(model.parameters(), lr=0.1), attach=False)
    model(torch.ones(1, 3).double()).sum().backward()
    rwalk.before_step()
    with pytest.raises(RWalkError, match="between"):
        rwalk.save(tmp_path / "state")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_failing_write_leaves_the_old_file_and_nothing_else(learned, saved, monkeypatch, error):
    old = saved.read_bytes()

    written = []

    def failing(file, *rest):  # half of it reaches the disk
        if len(written) == 3:
            raise error
        written.append(really(file, *rest))
        return written[-1]

    really = container._write
    monkeypatch.setattr(container, "_write", failing)
    with pytest.raises(type(error)):
        learned[2].save(saved)
    assert saved.read_bytes() == old
    assert list(saved.parent.iterdir()) == [saved]


def test_saving_replaces_a_file_and_takes_a_string(learned, saved):
    model, optimizer, rwalk = learned
    train(model, optimizer, 2, 1, torch.float32)
    rwalk.save(str(saved))
    assert inspect_state(str(saved))["steps"] == 17
    assert list(saved.parent.iterdir()) == [saved]
