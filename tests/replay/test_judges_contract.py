"""What every judge of exemplars' features refuses."""

import pytest
import torch

from rwalk.replay import ClassMeans, LinearDiscriminant

KINDS = pytest.mark.parametrize("kind", [ClassMeans, LinearDiscriminant])


@KINDS
@pytest.mark.parametrize(
    ("features", "labels"),
    [
        (torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)),
        (torch.zeros(4), torch.zeros(4, dtype=torch.int64)),
        (torch.zeros(4, 3), torch.zeros(3, dtype=torch.int64)),
    ],
)
def test_what_is_not_labelled_is_refused(kind, features, labels):
    with pytest.raises(ValueError, match=r"expected \(N, D\) and \(N,\), N ≥ 1"):
        kind.of(features, labels)


@KINDS
def test_scores_need_the_same_features_and_an_output_for_each_class(kind):
    found = kind.of(torch.ones(2, 3), torch.tensor([0, 4]))
    with pytest.raises(ValueError, match=r"expected \(B, 3\)"):
        found.scores(torch.ones(2, 4), 5, missing=0.0)
    with pytest.raises(ValueError, match="outputs=4: there are exemplars of class 4"):
        found.scores(torch.ones(2, 3), 4, missing=0.0)
