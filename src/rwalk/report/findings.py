"""What a study says, in a sentence."""

from __future__ import annotations

from collections.abc import Sequence

from rwalk.experiments import METHODS
from rwalk.experiments.summary import paired_difference
from rwalk.report.study import NAMES, Group, Study

__all__ = ["evidence", "headline", "is_bound"]

MOST = 3  # benchmarks in a headline


def headline(study: Study) -> str:
    """The finding that stands above everything."""
    if study.kind == "tuning" and study.best is not None:
        return _chosen(study, study.best)
    ranked = study.ranked("average_accuracy")
    if not ranked:
        return f"{study.title}: no run has finished"
    if len(ranked) == 1:
        forgotten = ranked[0].spread("forgetting")
        told = "" if forgotten is None else f" and has forgotten {100 * forgotten[0]:.1f} points"
        return f"{ranked[0].label} ends at {_value(ranked[0], 'average_accuracy')} average accuracy{told}"
    benchmarks = list(study.benchmarks)
    if len(benchmarks) == 1:
        return _first(ranked)
    each = [f"{name}: {_first([g for g in ranked if g in study.benchmarks[name]])}" for name in benchmarks[:MOST]]
    left = f"; and {len(benchmarks) - MOST} more benchmarks" if benchmarks[MOST:] else ""
    return "; ".join(each) + left


def _first(ranked: Sequence[Group]) -> str:
    """Which of several labels ends highest, the best first; those that learn from all data at once aside."""
    if not ranked:
        return "no run has finished"
    rivals = [group for group in ranked if not is_bound(group)] or ranked
    value = _value(rivals[0], "average_accuracy")
    if len(ranked) == 1:
        return f"{ranked[0].label} ends at {value} average accuracy"
    first = f"{rivals[0].label} ends highest: {value} average accuracy"
    if len(rivals) == 1:
        return first
    second, ends = rivals[1], _interval(rivals[0], rivals[1])
    other = _value(second, "average_accuracy")
    if other == value:
        return f"{rivals[0].label} ends as high as {second.label}: {value} average accuracy"
    if ends is not None and ends[0] <= 0.0 <= ends[1]:
        return f"{first}, not told apart from {second.label} ({other})"
    return f"{first}, before {second.label} ({other})"


def _chosen(study: Study, best: str) -> str:
    """What a tuning chose, with its figure where that was trained: a λ between several may not have been."""
    metric = study.metric or "average_accuracy"
    name = NAMES.get(metric, (metric, True))[0]
    group = next((group for group in study.groups if group.label == best), None)
    if group is not None and group.values(metric):
        return f"{best} is chosen: {_value(group, metric)} {name} on held-out data"
    by = f" by {name}" if study.metric else ""
    return f"{best} is chosen{by} on held-out data"


def evidence(study: Study) -> str:
    """On what the headline of a comparison rests; nothing for a single label."""
    rivals = [group for group in study.ranked("average_accuracy") if not is_bound(group)]
    if len(rivals) < 2 or study.kind == "tuning":
        return ""
    if len(study.benchmarks) > 1:
        return "Labels are ranked within their benchmark."
    ends = _interval(rivals[0], rivals[1])
    if ends is None:
        return "One seed only: the order may be chance. Run more seeds to tell."
    told = f"Seed by seed, {rivals[0].label} less {rivals[1].label}: "
    told += f"95 % interval {ends[0]:+.1f} to {ends[1]:+.1f} points"
    return told + (", which includes 0." if ends[0] <= 0.0 <= ends[1] else ".")


def _interval(first: Group, second: Group) -> tuple[float, float] | None:
    """The 95 % confidence interval of how much one is ahead of the other, in points; None below two common seeds."""
    ours, theirs = ({run.seed: run.metrics.get("average_accuracy") for run in one.runs} for one in (first, second))
    pairs = [(a, b) for seed, a in ours.items() if a is not None and (b := theirs.get(seed)) is not None]
    if len(pairs) < 2:
        return None
    found = paired_difference([100 * a for a, _ in pairs], [100 * b for _, b in pairs])
    return (found.low or 0.0, found.high or 0.0)


def is_bound(group: Group) -> bool:
    """Whether it learns from all data at once, which is what others are measured against."""
    method = METHODS.get(str(group.config.get("method")))
    return method is not None and method.data != "new"


def _value(group: Group, metric: str) -> str:
    spread = group.spread(metric)
    return "–" if spread is None else f"{100 * spread[0]:.1f} %"
