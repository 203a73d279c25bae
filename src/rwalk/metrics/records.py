"""Matrices of all metrics on all streams, in whichever order experiences are learned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rwalk.metrics.matrix import AccuracyMatrix, MetricMatrix, completed
from rwalk.metrics.names import metric_key
from rwalk.metrics.tally import ACCURACY, Tally

__all__ = ["Records"]

FORGETTING = {"forgetting": "StreamForgetting", "backward_transfer": "StreamBWT"}


class Records:
    """Fills the rows of matrices.

    Attributes:
        tables: Matrix by metric and stream name.
        streams: By name what tells a stream from others, milestones first.
        learned: Experiences learned, by what tells them apart (length of their stream and place first), the last one
            last, each with its number.
    """

    def __init__(self) -> None:
        self.tables: dict[tuple[str, str], MetricMatrix] = {}
        self.streams: dict[str, tuple[Any, ...]] = {}
        self.learned: dict[tuple[Any, ...], int] = {}

    def call(self, name: str, told: tuple[Any, ...]) -> None:
        """A stream is evaluated.

        Raises:
            ValueError: Another one had this name.
        """
        if self.streams.setdefault(name, told) != told:
            raise ValueError(f"another stream was called {name!r} before: give this one a name of its own")

    def learn(self, told: tuple[Any, ...]) -> None:
        """An experience has been learned, perhaps once more."""
        self.learned[told] = self.learned.pop(told, len(self.learned))
        for (_, stream), matrix in self.tables.items():
            for task in self._completions(stream)[-1]:
                matrix.learn(task)

    def record(self, stream: str, row: Mapping[int, Tally]) -> dict[str, float]:
        """Some experiences of a stream were evaluated; what is published of forgetting then, by name."""
        completions = self._completions(stream)
        rows = completions[-1] if completions else (-1,)
        measured = {place: tally.values() for place, tally in row.items()} if rows else {}
        published = {}
        for metric in dict.fromkeys(name for values in measured.values() for name in values):
            values = {place: float(found[metric]) for place, found in measured.items() if metric in found}
            if (metric, stream) not in self.tables:
                higher = row[next(iter(values))].higher_is_better(metric)
                matrix = _matrix(metric, len(self.streams[stream][0]), higher)
                for task in (task for tasks in completions for task in tasks):
                    matrix.learn(task)
                self.tables[metric, stream] = matrix
            matrix = self.tables[metric, stream]
            for task in rows:
                matrix.fill(task, values)
            summary = matrix.summary()
            for key, name in FORGETTING.items():
                value = summary[key]
                if value is not None:
                    published[metric_key(name if metric == ACCURACY else f"{name}_{metric}", stream)] = value
        return published

    def state_dict(self) -> dict[str, Any]:
        """All that was recorded."""
        tables = [[*key, matrix.higher_is_better, matrix.state_dict()] for key, matrix in self.tables.items()]
        learned = [[*told, number] for told, number in self.learned.items()]
        return {"tables": tables, "learned": learned, "streams": dict(self.streams)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a ``state_dict``."""
        self.learned = {tuple(told): number for *told, number in state_dict["learned"]}
        self.streams, self.tables = dict(state_dict["streams"]), {}
        for metric, stream, higher, state in state_dict["tables"]:
            self.tables[metric, stream] = _matrix(metric, len(state["values"]), higher)
            self.tables[metric, stream].load_state_dict(state)

    def _completions(self, stream: str) -> list[tuple[int, ...]]:
        """Which experiences of a stream each experience learned has completed: its own counterparts.

        Of a stream that does not belong to the one learned from, so many are completed as were learned.
        """
        milestones = self.streams[stream][0]
        places = [told[1] if told[0] == milestones[-1] else number for told, number in self.learned.items()]
        return completed(milestones, places)


def _matrix(metric: str, tasks: int, higher_is_better: bool | None) -> MetricMatrix:
    return AccuracyMatrix(tasks) if metric == ACCURACY else MetricMatrix(tasks, higher_is_better=higher_is_better)
