"""The end of a Trainer's training among other callbacks: what they leave is the anchor, the scores are the walk's."""

import pytest
import torch
from torch import nn
from transformers import TrainerCallback

from integrations.trainers import classifier, labelled, trainer
from reference.problems import assert_same, weights
from rwalk import RWalkConfig
from rwalk.integrations.transformers import RWalkTrainerCallback

CONFIG = RWalkConfig(ewc_lambda=5.0, ewc_alpha=0.3, delta_t=3)


class Leaves(TrainerCallback):
    """Puts other weights in place as training ends, as callbacks do that average weights, or load the best ones."""

    def __init__(self, loads):
        self.loads = loads

    def on_train_end(self, args, state, control, **kwargs):
        model = kwargs["model"]
        if self.loads:
            model.load_state_dict({name: value / 2 for name, value in model.state_dict().items()})
            return
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(0.5)


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("loads", [False, True])
@pytest.mark.parametrize("first", [True, False])
def test_the_anchor_is_what_train_leaves_and_the_scores_are_the_walks_whatever_the_order(tmp_path, first, loads, log):
    plain, walk = classifier(), RWalkTrainerCallback(CONFIG)
    trainer(plain, tmp_path, labelled(0), walk).train()
    model, other, leaves = classifier(), RWalkTrainerCallback(CONFIG, log=log), Leaves(loads)
    framework = trainer(model, tmp_path, labelled(0), *([other, leaves] if first else [leaves, other]))
    before = set(framework.callback_handler.callbacks)
    framework.train()
    assert set(framework.callback_handler.callbacks) == before
    found, expected = (callback.rwalk.state_dict()["parameters"] for callback in (other, walk))
    for name, parameter in model.named_parameters():
        assert torch.equal(found[name]["anchor"], parameter)
        torch.testing.assert_close(2 * found[name]["anchor"], expected[name]["anchor"])
        for quantity in ("fisher", "score", "importance"):
            assert torch.equal(found[name][quantity], expected[name][quantity])


def test_the_callbacks_of_a_training_that_was_interrupted_are_left_alone(tmp_path):
    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 3:
                raise KeyboardInterrupt

    callback, stop = RWalkTrainerCallback(CONFIG), Stop()
    framework = trainer(classifier(), tmp_path, labelled(0), callback, stop)
    before = list(framework.callback_handler.callbacks)
    with pytest.raises(KeyboardInterrupt):
        framework.train()
    framework.remove_callback(stop)
    framework.train()
    before.remove(stop)
    assert framework.callback_handler.callbacks == before
    assert (callback.rwalk.tasks, callback.rwalk.steps) == (1, 3 + 8)


class Rebuilds(TrainerCallback):
    """Puts another module in a place of the model as training ends, as merging an adapter does."""

    def on_train_end(self, args, state, control, model=None, **kwargs):
        name, old = [(name, each) for name, each in model.named_modules() if isinstance(each, nn.Linear)][-1]
        model.set_submodule(name, nn.Linear(old.in_features, old.out_features))


@pytest.mark.parametrize("unfinished", ["flush", "drop"])
def test_a_model_that_is_rebuilt_as_training_ends_is_held_where_the_walk_led(tmp_path, unfinished):
    config, kept, expected = CONFIG.replace(unfinished=unfinished), classifier(), None
    for others in ((), (Rebuilds(),)):
        model, walk = (kept if not others else classifier()), RWalkTrainerCallback(config)
        framework = trainer(model, tmp_path, labelled(0), walk, *others)
        before = list(framework.callback_handler.callbacks)
        framework.train()
        assert framework.callback_handler.callbacks == before
        assert (walk.rwalk.tasks, walk.rwalk.attached) == (1, False)
        expected = expected or walk.rwalk
    assert_same(walk.rwalk.anchors(), expected.anchors())
    assert_same(walk.rwalk.importances(), expected.importances())
    assert_same(
        walk.rwalk.anchors(), {name: each for name, each in weights(kept).items() if name in expected.anchors()}
    )


def test_a_callback_that_was_removed_ends_no_task(tmp_path):
    walk = RWalkTrainerCallback(CONFIG)
    training = trainer(classifier(), tmp_path, labelled(0), walk)

    class Removes(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 2:
                training.remove_callback(walk)

    training.add_callback(Removes())
    training.train()
    assert walk.rwalk.tasks == 0
