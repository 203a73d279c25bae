"""The samplers written out in plain Python: floats in lists, every probability and every candidate in turn.

Nothing here is shared with the package.
"""

import math
from itertools import permutations

import numpy as np


def entropy_of(logits: list[float]) -> float:
    """−Σ p ln p of the softmax."""
    top = max(logits)
    powers = [math.exp(value - top) for value in logits]
    shares = [power / math.fsum(powers) for power in powers]
    return -math.fsum(p * math.log(p) for p in shares if p > 0.0)


def highest_entropy(rows: list[list[float]], budget: int) -> list[int]:
    """Positions by descending entropy."""
    return sorted(range(len(rows)), key=lambda i: -entropy_of(rows[i]))[:budget]


def plane_weights(features: list[list[float]], weight: list[float]) -> list[float]:
    """1 / |φᵀw|."""
    return [1.0 / abs(math.fsum(a * b for a, b in zip(row, weight, strict=True))) for row in features]


def nearest_mean(
    features: list[list[float]], labels: list[int], rows: list[list[float]]
) -> tuple[list[int], list[list[float]], list[int]]:
    """The class of the nearest mean, all features and means of length 1; the distances, and the classes in order."""
    seen, means = sorted(set(labels)), []
    for label in seen:
        own = [unit(row) for row, its in zip(features, labels, strict=True) if its == label]
        means.append(unit([math.fsum(column) / len(own) for column in zip(*own, strict=True)]))
    distances = [[math.dist(unit(row), mean) for mean in means] for row in rows]
    return [seen[row.index(min(row))] for row in distances], distances, seen


def discriminant(
    features: list[list[float]], labels: list[int], rows: list[list[float]], shrinkage: float, power: float = 0.5
) -> np.ndarray:
    """Gaussian classes of one covariance, inverted whole; scores (rows, classes in order), times the added variance."""

    def raised(row: list[float]) -> list[float]:
        return [math.copysign(abs(value) ** power, value) for value in row]

    features, rows = [raised(row) for row in features], [raised(row) for row in rows]
    known = np.array([unit(row) for row in features])
    seen, width = sorted(set(labels)), known.shape[1]
    means = {label: known[np.array(labels) == label].mean(0) for label in seen}
    covariance = np.zeros((width, width))
    for row, label in zip(known, labels, strict=True):
        covariance += np.outer(row - means[label], row - means[label]) / (len(known) - len(seen))
    added = shrinkage * np.trace(covariance) / width
    inverse = np.linalg.inv(covariance + added * np.eye(width))
    columns = []
    for label in seen:
        slope = inverse @ means[label]
        columns.append([added * (np.dot(unit(row), slope) - slope @ means[label] / 2) for row in rows])
    return np.array(columns).T


def unit(row: list[float]) -> list[float]:
    """A row of the same direction and length 1."""
    length = math.hypot(*row)
    return [value / length for value in row]


def draw_probabilities(weights: list[float], budget: int) -> dict[tuple[int, ...], float]:
    """How likely each ordered draw without replacement is, one position after the other."""
    found = {}
    for order in permutations(range(len(weights)), min(budget, len(weights))):
        left, probability = math.fsum(weights), 1.0
        for position in order:
            probability *= weights[position] / left
            left -= weights[position]
        found[order] = probability
    return found


def herding_gap(features: list[list[float]], chosen: list[int]) -> float:
    """‖μ − mean of the chosen‖."""
    gaps = []
    for column in range(len(features[0])):
        mean = math.fsum(row[column] for row in features) / len(features)
        gaps.append(mean - math.fsum(features[i][column] for i in chosen) / len(chosen))
    return math.sqrt(math.fsum(gap * gap for gap in gaps))


def herded(features: list[list[float]], budget: int) -> list[int]:
    """At each step the sample that brings the mean of the chosen nearest to μ, among those that are left."""
    chosen: list[int] = []
    while len(chosen) < min(budget, len(features)):
        left = [i for i in range(len(features)) if i not in chosen]
        chosen.append(min(left, key=lambda i: herding_gap(features, [*chosen, i])))
    return chosen


def chi_square(counts, probabilities: dict, draws: int) -> float:
    """How far counts are from what probabilities let expect."""
    assert set(counts) <= set(probabilities)
    return sum((counts[key] - draws * p) ** 2 / (draws * p) for key, p in probabilities.items())
