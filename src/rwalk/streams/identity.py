"""Which stream, which experience: what is told apart from what."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rwalk.streams.experience import Stream, task_label_of

__all__ = ["by_stream", "experience_told", "stream_told"]


def by_stream(experiences: Sequence[Any]) -> list[list[Any]]:
    """Experiences grouped by the stream that each comes from.

    Raises:
        ValueError: Two of the streams have the same name, under which their metrics would be mixed up.
    """
    groups: dict[str, list[Any]] = {}
    for experience in experiences:
        origin = experience.origin_stream
        group = groups.setdefault(origin.name, [])
        if group and not _same(group[0].origin_stream, origin):
            raise ValueError(
                f"two streams are called {origin.name!r}, and their metrics would be mixed up: give each a name of its "
                "own"
            )
        group.append(experience)
    return list(groups.values())


def stream_told(stream: Any) -> tuple[Any, ...]:
    """What tells a stream from others of its name, also in another process: milestones, and each experience's."""
    milestones = getattr(stream, "milestones", range(1, len(stream) + 1))
    return (tuple(milestones), *(experience_told(experience)[2:] for experience in stream))


def experience_told(experience: Any) -> tuple[Any, ...]:
    """What tells an experience from others: length of its stream, its place, task label, classes and size."""
    classes = getattr(experience, "classes_in_this_experience", None) or ()
    size = len(experience.dataset) if hasattr(experience.dataset, "__len__") else -1
    where = len(experience.origin_stream), experience.current_experience
    return (*where, task_label_of(experience), tuple(sorted(int(label) for label in classes)), size)


def _same(one: Any, other: Any) -> bool:
    ours = isinstance(one, Stream) and isinstance(other, Stream)
    return one is other or (not ours and stream_told(one) == stream_told(other))
