"""What a setting does: metrics against λ, or against whatever else was tried at several values."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean
from typing import Any

from rwalk.experiments.loading import flat
from rwalk.experiments.methods import is_strength
from rwalk.report.charts import Chart, Series
from rwalk.report.study import Group, Study, readable

__all__ = ["response_chart"]

STRENGTH = "rwalk.ewc_lambda"
LINES = 8  # in a figure
#: Drawn where there is one line only.
ALSO = ("learning_accuracy", "forgetting")


def response_chart(study: Study) -> Chart | None:
    """Metrics against the setting that was tried at most values; None if none was tried at several."""
    settings = _Settings(study)
    key = settings.key()
    if key is None:
        return None
    lines: dict[str, list[tuple[float, Group]]] = {}
    for place, group in enumerate(study.groups):
        value = settings.flat[place].get(key)
        if isinstance(value, int | float) and group.values("average_accuracy"):
            lines.setdefault(settings.others(place, key), []).append((float(value), group))
    lines = {name: sorted(places, key=lambda place: place[0]) for name, places in lines.items() if len(places) > 1}
    ranked = sorted(lines, key=lambda name: -_best(lines[name])[0])[:LINES]
    metric, called = "average_accuracy", readable(key)
    series = []
    for index, name in enumerate(ranked):
        series += _line(lines[name], metric, name if len(ranked) > 1 else "accuracy", index)
    if len(ranked) == 1:
        for index, other in enumerate(ALSO, start=1):
            series += _line(lines[ranked[0]], other, other.removesuffix("_accuracy"), index)
    if not series:
        return None
    values = [value for places in lines.values() for value, _ in places]
    top, at = _best(lines[ranked[0]])
    edge = at in (min(values), max(values))
    whose = f" with {ranked[0]}" if len(ranked) > 1 else ""
    title = f"Average accuracy is highest{whose} at {called} = {at:g} ({top:.1f} %)"
    title += ", the end of what was tried: try further" if edge else ""
    validated = any(config.get("validation") for config in settings.flat)
    where = (
        "training data that was held out"
        if validated
        else "the test data (rwalk tune chooses on data that is held out)"
    )
    note = f"Means over seeds, points are single seeds; measured on {where}."
    if len(ranked) == 1:
        note += " Where learning falls, new tasks are held back; where forgetting rises, old ones are not held."
    wide = min(values) > 0 and max(values) >= 10 * min(values)
    return Chart("response", title, note, called, "%", series, log_x=wide)


class _Settings:
    """The settings of a study, flattened once."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.flat = [_one_strength(flat(group.config)) for group in study.groups]
        self.methods = [str(config.get("method", "")) for config in self.flat]
        keys = dict.fromkeys(key for config in self.flat for key in config if key != "seed")
        self.differing = {key: [config.get(key) for config in self.flat] for key in keys}
        known = {key: {str(value) for value in values if value is not None} for key, values in self.differing.items()}
        self.differing = {key: values for key, values in self.differing.items() if len(known[key]) > 1}
        self.within = {
            method: [key for key in self.differing if key != "method" and len(self._tried(method, key)) > 1]
            for method in dict.fromkeys(self.methods)
        }

    def others(self, place: int, key: str) -> str:
        """The settings in which a label differs from others of its method, but for one."""
        config, method = self.flat[place], self.methods[place]
        told = [f"{readable(k)}={config.get(k)}" for k in self.within[method] if k != key]
        return ", ".join([*([method] if len(self.within) > 1 else []), *told])

    def key(self) -> str | None:
        """The setting tried at most values while others stayed, three at least; a strength before others, at two."""
        found: dict[str, int] = {}
        for key, values in self.differing.items():
            rivals: dict[str, set[object]] = {}
            for place, value in enumerate(values):
                if _is_number(value):
                    rivals.setdefault(self.others(place, key), set()).add(value)
            most = max(map(len, rivals.values()), default=0)
            if most > 2 or (most > 1 and key == STRENGTH):
                found[key] = most
        return max(found, key=lambda key: (key == STRENGTH, found[key]), default=None)

    def _tried(self, method: str, key: str) -> set[str]:
        return {str(config.get(key)) for config, name in zip(self.flat, self.methods, strict=True) if name == method}


def _one_strength(config: dict[str, Any]) -> dict[str, Any]:
    """λ under one name, whatever the method calls it."""
    return {STRENGTH if is_strength(key) else key: value for key, value in config.items()}


def _best(places: Sequence[tuple[float, Group]]) -> tuple[float, float]:
    """The highest mean accuracy, and where."""
    return max(((100 * mean(found), value) for value, group in places if (found := group.values("average_accuracy"))),
               default=(0.0, places[0][0]))  # fmt: skip


def _line(places: Sequence[tuple[float, Group]], metric: str, name: str, index: int) -> list[Series]:
    having = [(value, group.values(metric)) for value, group in places if group.values(metric)]
    if not having:
        return []
    x, y = [value for value, _ in having], [100 * mean(found) for _, found in having]
    line = Series(name, x, y, index, direct=name, dashed=metric == "forgetting")
    seeds = [(value, 100 * one) for value, found in having if len(found) > 1 for one in found]
    points = Series(f"{name}, seeds", [v for v, _ in seeds], [one for _, one in seeds], index, kind="points")
    return [line, points] if seeds else [line]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
