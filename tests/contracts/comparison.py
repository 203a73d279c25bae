"""How far apart two outcomes are."""

from __future__ import annotations

from contracts.problem import Outcome


def worst(found: Outcome, expected: Outcome) -> float:
    """The largest distance of any tensor, or penalty, relative to the expected one's norm."""
    assert len(found.snapshots) == len(expected.snapshots)
    distances = []
    for mine, reference in zip(found.snapshots, expected.snapshots, strict=True):
        assert (mine.tasks, mine.steps) == (reference.tasks, reference.steps)
        distances.append(abs(mine.penalty - reference.penalty) / (reference.penalty or 1.0))
        assert set(mine.tensors) == set(reference.tensors)
        for kind, tensors in reference.tensors.items():
            assert set(mine.tensors[kind]) == set(tensors), kind
            for name, tensor in tensors.items():
                distance = (mine.tensors[kind][name].double() - tensor.double()).norm()
                distances.append((distance / (tensor.double().norm() or 1.0)).item())
    return max(distances)
