"""What protect is given and cannot take: it says what was expected, and nothing has changed."""

import pytest
import torch
from torch import nn

from rwalk import RWalk, RWalkConfig, RWalkError


def rwalk_on(model):
    return RWalk(model, torch.optim.SGD(model.parameters(), lr=0.1), RWalkConfig(ewc_lambda=1.0))


@pytest.mark.parametrize("class_dim", [5, 2, -3, 0, -2, True, 1.0])
@pytest.mark.parametrize("batch", [torch.ones(4, 3), (torch.ones(4, 3), torch.zeros(4, dtype=torch.int64))])
def test_a_dimension_that_goes_over_no_classes_is_refused(class_dim, batch):
    rwalk = rwalk_on(nn.Linear(3, 2))
    with pytest.raises(ValueError, match=rf"class_dim={class_dim}: expected a dimension .* shape \(4, 2\), after the"):
        rwalk.protect([batch], class_dim=class_dim)
    assert rwalk.tasks == 0


@pytest.mark.parametrize("label", [2, 7, -1])
def test_labels_of_no_class_are_refused_where_they_are_read(label):
    rwalk = rwalk_on(nn.Linear(3, 2))
    batch = torch.ones(3, 3), torch.tensor([0, label, -100])
    with pytest.raises(RWalkError, match=rf"labels go from {min(0, label)} to {max(0, label)}, .* expected 0 to 1"):
        rwalk.protect([batch], labels="data")
    assert rwalk.tasks == 0
    rwalk.protect([batch])
    rwalk.protect([(torch.ones(3, 3), torch.tensor([0, 1, -100]))], labels="data")


def test_options_out_of_range():
    rwalk = rwalk_on(nn.Linear(3, 2))
    for options in ({"labels": "own"}, {"likelihood": "poisson"}, {"max_samples": 0}, {"combine": "median"}):
        with pytest.raises(ValueError, match=f"{next(iter(options))}="):
            rwalk.protect([torch.randn(4, 3)], **options)
    assert rwalk.tasks == 0


@pytest.mark.parametrize(
    "batch",
    [
        torch.zeros(3, 4),
        {"input_ids": torch.zeros(3, 4)},
        (torch.zeros(3, 4), torch.zeros(3).long()),
        [torch.zeros(3, 4), torch.zeros(3).long()],
        [torch.zeros(3, 4), torch.zeros(3)],
        [torch.zeros(3, 4), torch.zeros(3).long(), torch.zeros(3).long()],
    ],
)
def test_a_single_batch_is_refused(batch):
    model = nn.Linear(4, 3)
    rwalk = rwalk_on(model)
    with pytest.raises(TypeError, match=r"one batch is \[batch\]"):
        rwalk.protect(batch)
    assert rwalk.tasks == 0


@pytest.mark.parametrize("kind", [list, tuple])
def test_batches_without_labels_are_no_pair(kind):
    rwalk = rwalk_on(nn.Linear(4, 3))
    assert rwalk.protect(kind([torch.zeros(3, 4), torch.ones(3, 4)])).samples == 6
