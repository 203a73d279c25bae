"""The end of a fit among other callbacks: what they leave is the anchor, the scores are the walk's."""

import pytest
import torch
from lightning.pytorch import Callback, callbacks
from lightning.pytorch.callbacks import (
    StochasticWeightAveraging,
)

from contracts.doors_lightning import Module
from integrations.lightning_toys import PROBLEM, fit
from rwalk.integrations.lightning import RWalkCallback

CONFIG = PROBLEM.config


class Leaves(Callback):
    """Puts other weights in place as training ends, as callbacks do that average weights, or load the best ones."""

    def __init__(self, loads=None) -> None:
        self.loads = loads

    def on_train_end(self, trainer, pl_module):
        if self.loads is not None:
            part = getattr(pl_module, self.loads) if self.loads else pl_module
            part.load_state_dict({name: value / 2 for name, value in part.state_dict().items()})
            return
        with torch.no_grad():
            for parameter in pl_module.parameters():
                parameter.data.mul_(0.5)


@pytest.mark.parametrize("loads", [None, "", "net"])
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("options", [{}, {"anchor_at": "average"}])
def test_the_anchor_is_what_the_fit_leaves_and_the_scores_are_the_walks_whatever_the_order(first, loads, options):
    config = CONFIG.replace(delta_t=7)  # a window is open as the fit ends
    plain, walk = Module(PROBLEM), RWalkCallback(config)
    fit(plain, 0, [walk])
    module, other, leaves = Module(PROBLEM), RWalkCallback(config.replace(**options)), Leaves(loads)
    fit(module, 0, [other, leaves] if first else [leaves, other])
    found, expected = (cb.rwalk.state_dict()["parameters"] for cb in (other, walk))
    for name, parameter in module.named_parameters():
        assert torch.equal(found[name]["anchor"], parameter)
        torch.testing.assert_close(2 * found[name]["anchor"], expected[name]["anchor"])
        for quantity in ("fisher", "score", "importance"):
            assert torch.equal(found[name][quantity], expected[name][quantity])


@pytest.mark.parametrize("averaging", ["ema", "swa"])
def test_averaged_weights_are_the_anchor(averaging):
    if averaging == "ema" and not hasattr(callbacks, "EMAWeightAveraging"):
        pytest.skip("this Lightning has no EMAWeightAveraging")
    ema = averaging == "ema"
    other = callbacks.EMAWeightAveraging(decay=0.9) if ema else StochasticWeightAveraging(0.1, swa_epoch_start=1)
    module, walk = Module(PROBLEM), RWalkCallback(CONFIG)
    fit(module, 0, [walk, other], max_epochs=3)
    for name, parameter in module.named_parameters():
        assert torch.equal(walk.rwalk.state_dict()["parameters"][name]["anchor"], parameter)


def test_the_walk_keeps_its_place_among_the_callbacks_of_several_fits():
    module, walk, leaves = Module(PROBLEM), RWalkCallback(CONFIG), Leaves()
    trainer = fit(module, 0, [walk, leaves])
    assert trainer.callbacks == [walk, leaves]
