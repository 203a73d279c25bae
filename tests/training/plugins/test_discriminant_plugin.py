"""Evaluation by a linear discriminant or a judge of one's own; what all share is tested with the nearest mean."""

import copy

import pytest
import torch

from replay.twins import discriminant
from rwalk.training import DiscriminantPlugin, JudgedByExemplars, ReplayPlugin
from training.toys import naive, net, sgd, toy

TOP = "Top1_Acc_Exp/eval_phase/test_stream/Task000/Exp{:03d}"


@pytest.mark.parametrize(("layer", "options"), [(None, {}), ("0", {}), (None, {"shrinkage": 0.1, "power": 1.0})])
def test_accuracy_is_that_of_the_discriminant(layer, options):
    replay = ReplayPlugin(per_class=4)
    plugin = DiscriminantPlugin(replay, layer, **options)
    model = net(dropout=0.4)
    strategy = naive(model, plugins=[replay, plugin], optimizer=sgd(model, 0.05))
    strategy.train(toy().train_stream)
    twin, tests = copy.deepcopy(strategy.model).eval(), toy().test_stream
    metrics, samples = strategy.eval(tests), replay.memory.samples
    features = twin[:1] if layer else twin[:-1]
    kept, labels = torch.stack([x for x, *_ in samples]), [int(y) for _, y, _ in samples]
    for place, experience in enumerate(tests):
        with torch.no_grad():
            known, asked = features(kept).tolist(), features(experience.dataset.x).tolist()
        scores = discriminant(known, labels, asked, **{"shrinkage": 10.0, **options})
        right = torch.tensor(sorted(set(labels)))[scores.argmax(1)] == experience.dataset.targets
        assert metrics[TOP.format(place)] == pytest.approx(right.float().mean().item())


def test_something_else_than_a_replay_plugin_is_refused():
    with pytest.raises(TypeError, match=r"replay=5: expected the ReplayPlugin"):
        DiscriminantPlugin(5)


def test_a_shrinkage_that_is_none_is_refused_before_anything_is_learned():
    with pytest.raises(ValueError, match="shrinkage=0: expected a positive number"):
        DiscriminantPlugin(ReplayPlugin(per_class=2), shrinkage=0)


def test_a_judge_of_ones_own_decides():
    class Last:
        def scores(self, features, outputs, missing):
            scores = torch.full((len(features), outputs), missing)
            scores[:, outputs - 1] = 1.0
            return scores

    class LastPlugin(JudgedByExemplars):
        def judge_of(self, features, labels):
            assert features.shape == (8, 8)
            assert sorted(labels.tolist()) == [0, 0, 1, 1, 2, 2, 3, 3]
            return Last()

    replay = ReplayPlugin(per_class=2)
    strategy = naive(plugins=[replay, LastPlugin(replay)])
    strategy.train(toy().train_stream)
    metrics, tests = strategy.eval(toy().test_stream), toy().test_stream
    found = [metrics[TOP.format(place)] for place in range(len(tests))]
    assert found == [(experience.dataset.targets == 3).float().mean().item() for experience in tests]
    assert max(found) > 0
