"""What a model's outputs are, told from one logit or in half precision."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from rwalk import RWalk, RWalkConfig


def rwalk_on(model, **settings):
    return RWalk(model, torch.optim.SGD(model.parameters(), lr=0.1), RWalkConfig(**settings))


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("labels", [lambda y: y.long(), lambda y: y, lambda y: y.long().unsqueeze(1)])
def test_one_logit_with_whole_numbers_as_labels_is_a_mark(labels, flat):
    torch.manual_seed(5)
    model = nn.Sequential(nn.Linear(3, 1), *([nn.Flatten(0)] if flat else []))
    x = torch.randn(8, 3)
    importances = []
    for y in (labels(x[:, 0] > 0), (x[:, 0] > 0).float()):
        rwalk = rwalk_on(model, scaling="none")
        assert rwalk.protect([(x, y)], labels="data").likelihood == "bernoulli"
        importances.append(rwalk.importances())
        rwalk.detach()
    assert bool(importances[1]["0.weight"].all())
    assert all(torch.equal(importances[0][name], value) for name, value in importances[1].items())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_many_samples_in_half_precision_are_summed_up_in_full(dtype):
    torch.manual_seed(6)
    half = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).to(dtype)
    whole = copy.deepcopy(half).double()
    x = torch.randn(600, 4).to(dtype)
    sums = []
    for model in (half, whole):
        rwalk = rwalk_on(model, scaling="none")
        rwalk.protect([x.to(model[0].weight.dtype)], labels="argmax")
        sums.append({name: float(value.double().sum()) for name, value in rwalk.importances().items()})
    assert sums[0] == pytest.approx(sums[1], rel=0.03)


@pytest.mark.parametrize("seed", range(4))
def test_a_models_loss_in_half_precision_is_known_again(seed):
    class Scored(nn.Linear):
        def forward(self, x, labels=None):
            logits = super().forward(x)
            return {"logits": logits, "loss": None if labels is None else cross_entropy(logits, labels)}

    torch.manual_seed(seed)
    model = Scored(3, 4).to(torch.bfloat16)
    batch = {"x": torch.randn(12, 3).to(torch.bfloat16), "labels": torch.randint(0, 4, (12,))}
    assert rwalk_on(model).protect([batch]).likelihood == "categorical"
