r"""Which samples become exemplars: the samplers as pure functions.

Each takes what it has to know of N candidates and a budget m, and returns min(m, N) distinct positions in [0, N),
int64, on the CPU. They are a ranking: its first entries are what a smaller budget would have got (of the random
samplers: as likely), so that a budget that shrinks later keeps the first ones. All chance comes from torch's global
generator of the CPU, whatever device the tensors are on.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["entropy", "in_proportion", "mean_of_features", "plane_distance", "reservoir", "uniform"]


def uniform(candidates: int, budget: int) -> Tensor:
    """Every sample of the class is as likely as any other (the paper's "uniform" sampling).

    Args:
        candidates: Samples of the class.
        budget: How many to choose; all of them if there are fewer.

    Returns:
        Distinct positions in [0, candidates), in random order, int64. Drawn from torch's global generator.
    """
    return torch.randperm(candidates)[:budget]


def reservoir(keys: Tensor, budget: int) -> Tensor:
    """The smallest of random keys: each sample that ever got a key is equally likely to be here.

    A sample gets its key once, when it arrives. The smallest keys of all samples are then among the smallest of those
    kept and those that arrive, however the stream is cut into pieces.

    Args:
        keys: One for each candidate, shape (N,), uniform in [0, 1).
        budget: How many to choose.

    Returns:
        Positions by ascending key.

    References:
        Vitter, *Random sampling with a reservoir*, 1985, for the problem; keys give the same distribution.
    """
    return keys.argsort(stable=True)[:budget].cpu()


def in_proportion(weights: Tensor, budget: int) -> Tensor:
    r"""Draw one after the other without replacement, each time in proportion to the weights that are left.

    Sample i waits an exponential time of rate :math:`w_i`; those that come first are drawn.

    Args:
        weights: Shape (N,), at least 0, any floating dtype. Samples of infinite weight come before all others, those of
            weight 0 after them, in random order among themselves.
        budget: How many to choose.

    Returns:
        Positions in the order in which they were drawn.

    Raises:
        ValueError: A weight is negative or not a number.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> in_proportion(torch.tensor([0.0, 1.0, float("inf")]), 3)
        tensor([2, 1, 0])
    """
    weights = weights.detach().to("cpu", torch.float64)
    if not bool((weights >= 0).all()):
        raise ValueError(f"weights[{int((~(weights >= 0)).nonzero()[0])}]: expected numbers of at least 0")
    waiting = -torch.log1p(-torch.rand(len(weights), dtype=torch.float64))
    shuffled = waiting.argsort()
    return shuffled[(waiting / weights)[shuffled].argsort(stable=True)][:budget]


def plane_distance(features: Tensor, weight: Tensor, budget: int) -> Tensor:
    r"""Samples near the class's decision plane are likelier (the paper's "plane distance" sampling).

    :math:`d(x) = \varphi(x)^\top w^y`, and x is drawn with probability proportional to :math:`1 / |d(x)|`, without
    replacement.

    Args:
        features: :math:`\varphi(x)` of the class's samples, shape (N, D).
        weight: :math:`w^y`, the class's row of the classification layer, without bias, shape (D,).
        budget: How many to choose.

    Returns:
        Positions in the order in which they were drawn.

    Raises:
        ValueError: Shapes do not fit, or a distance is not finite.

    Note:
        The paper is silent on d ≤ 0. The size of d counts here: a sample far on the wrong side of the plane is far from
        it. Nothing is added to tiny distances: at d = 0 a sample is certain to be drawn, and as there is no
        replacement, that costs one place.
    """
    if features.dim() != 2 or weight.shape != features.shape[1:]:
        raise ValueError(
            f"features of shape {tuple(features.shape)} and a weight of shape {tuple(weight.shape)}: "
            "expected (N, D) and (D,)"
        )
    return in_proportion(1.0 / _finite(_wide(features) @ _wide(weight), "plane distance").abs(), budget)


def entropy(logits: Tensor, budget: int, *, drawn: bool = False) -> Tensor:
    r"""Samples of which the model is unsure (the paper's "entropy" sampling).

    :math:`h(x) = -\sum_c p_c \ln p_c` with p the softmax of the logits.

    Args:
        logits: Shape (N, C); −∞ for classes that are masked.
        budget: How many to choose.
        drawn: Draw without replacement in proportion to h, instead of taking the highest h.

    Returns:
        Positions by descending entropy, equal ones as they come; with ``drawn`` in the order in which they were drawn.

    Raises:
        ValueError: ``logits`` is not a matrix, or a row has no finite entropy.
    """
    if logits.dim() != 2:
        raise ValueError(f"logits of shape {tuple(logits.shape)}: expected (N, C)")
    unsure = _finite(torch.special.entr(_wide(logits).softmax(dim=1)).sum(dim=1), "entropy")
    return in_proportion(unsure, budget) if drawn else unsure.argsort(descending=True, stable=True)[:budget]


def mean_of_features(features: Tensor, budget: int) -> Tensor:
    r"""Samples whose mean is near the class's mean at every length of the list (iCaRL's herding, without repeats).

    The j-th is :math:`\arg\min_x \lVert \mu - \frac1j (\varphi(x) + \sum_{i<j} \varphi(x_i)) \rVert` over those
    that are left, with :math:`\mu` the mean of all N.

    Args:
        features: :math:`\varphi(x)` of the class's samples, shape (N, D). They are taken as they are; iCaRL scales each
            to length 1 first.
        budget: How many to choose.

    Returns:
        Positions in the order in which they were found; of equally good ones the first. No chance is involved.

    Raises:
        ValueError: ``features`` is not a matrix, or not finite.

    Example:
        >>> mean_of_features(torch.tensor([[0.0], [1.0], [2.0], [5.0]]), 3)
        tensor([2, 1, 3])

    References:
        Rebuffi et al., *iCaRL*, CVPR 2017, algorithm 4.
    """
    if features.dim() != 2:
        raise ValueError(f"features of shape {tuple(features.shape)}: expected (N, D)")
    centred = _finite(_wide(features), "feature")
    if len(centred) == 0:
        return torch.empty(0, dtype=torch.int64)
    # Around the mean, the norm is ‖φ' + Σφ'‖ / j: nothing large cancels, and one product finds the best of all.
    centred = centred - centred.mean(dim=0)
    squares, total = centred.square().sum(dim=1), torch.zeros_like(centred[0])
    chosen: list[int] = []
    for _ in range(min(budget, len(centred))):
        gaps = squares + 2.0 * (centred @ total)
        gaps[chosen] = torch.inf
        chosen.append(int(gaps.argmin()))
        total = total + centred[chosen[-1]]
    return torch.tensor(chosen, dtype=torch.int64)


def _wide(values: Tensor) -> Tensor:
    return values.detach().to("cpu", torch.float64)


def _finite(values: Tensor, what: str) -> Tensor:
    wrong = (~values.isfinite()).nonzero()
    if len(wrong):
        raise ValueError(f"the {what} of candidate {int(wrong[0, 0])} is not finite: has the model diverged?")
    return values
