"""What arrives: experiences, one after the other, in streams."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, overload

from torch.utils.data import Dataset

from rwalk.streams.data import NoClassLabelsError, labels_of

__all__ = ["Benchmark", "Experience", "Stream", "task_label_of", "taught_after"]


@dataclass(frozen=True, eq=False)
class Experience:
    """One portion of the data, seen for a while and then gone.

    Attributes:
        dataset: Samples ``(x, y)`` or ``(x, y, task label)``, or mappings (rows of a table); x and y may be nested.
        current_experience: Its place in the stream, from 0.
        task_label: The task it belongs to (0 throughout where tasks are not told apart).
        classes: Its class labels, ascending; None if its targets are no class labels (regression, for instance).
        origin_stream: The stream it is part of.
    """

    dataset: Dataset[Any]
    current_experience: int
    task_label: int
    classes: tuple[int, ...] | None
    origin_stream: Stream

    @property
    def classes_in_this_experience(self) -> tuple[int, ...]:
        """Its class labels, ascending.

        Raises:
            AttributeError: It has none.
        """
        if self.classes is None:
            raise AttributeError(
                f"experience {self.current_experience} of the {self.origin_stream.name} stream has no class labels: "
                "its targets are no whole numbers, one for each sample"
            )
        return self.classes

    @property
    def task_labels(self) -> list[int]:
        """All task labels in the experience."""
        return [self.task_label]

    @property
    def previous_classes(self) -> tuple[int, ...]:
        """Classes of the experiences before this one, ascending."""
        earlier = self.origin_stream[: self.current_experience]
        return tuple(sorted({label for experience in earlier for label in experience.classes_in_this_experience}))

    @property
    def classes_seen_so_far(self) -> tuple[int, ...]:
        """Classes up to and including this experience, ascending."""
        return tuple(sorted({*self.previous_classes, *self.classes_in_this_experience}))


def task_label_of(experience: Any) -> int:
    """The task label of an experience, 0 where it has none (another framework's may not)."""
    return int(getattr(experience, "task_label", 0))


def taught_after(stream: Any, trained: int) -> tuple[int, ...]:
    """Which experiences of a test stream have just been taught: the rows of the accuracy matrix that can be filled.

    Args:
        stream: A stream to test on; another framework's may say nothing of milestones, and has one training experience
            for each of its own.
        trained: Number of training experiences that are over.

    Returns:
        Places in the stream; none in the midst of a task-free stream, -1 where nothing is trained yet.

    Example:
        >>> from rwalk.streams import benchmark
        >>> taught_after(benchmark("split-digits").test_stream, 2)
        (1,)
        >>> small = benchmark("online-digits").test_stream
        >>> [taught_after(small, trained) for trained in (0, 1, 20, 21)]
        [(-1,), (), (0,), ()]
    """
    if trained == 0:
        return (-1,)
    milestones = getattr(stream, "milestones", range(1, len(stream) + 1))
    return tuple(index for index, end in enumerate(milestones) if end == trained)


class Stream(Sequence[Experience]):
    """A sequence of experiences, such as all training or all test data.

    Args:
        name: ``"train"``, ``"test"``, ``"valid"``, …
        datasets: One dataset per experience.
        task_labels: One per experience; all 0 if None.
        milestones: Of a stream to test on: after how many training experiences each of its experiences has been taught,
            ascending from 1. None: after as many as its place says, one training experience for each.

    Raises:
        ValueError: No experience, an experience without samples or with class labels below 0, not as many task labels
            or milestones as experiences, or milestones that do not ascend.

    Example:
        >>> import torch
        >>> from rwalk.streams import TensorData
        >>> data = TensorData(torch.zeros(4, 2), torch.tensor([0, 1, 1, 0]))
        >>> stream = Stream("train", [data, data], task_labels=[0, 1])
        >>> stream[1].task_label, stream[1].classes_in_this_experience
        (1, (0, 1))
    """

    def __init__(
        self,
        name: str,
        datasets: Sequence[Dataset[Any]],
        task_labels: Sequence[int] | None = None,
        *,
        milestones: Sequence[int] | None = None,
    ) -> None:
        if not datasets:
            raise ValueError(f"the {name} stream has no experiences")
        tasks = [0] * len(datasets) if task_labels is None else list(task_labels)
        if len(tasks) != len(datasets):
            raise ValueError(f"the {name} stream has {len(datasets)} experiences and {len(tasks)} task labels")
        ends = list(range(1, len(datasets) + 1)) if milestones is None else list(milestones)
        if len(ends) != len(datasets) or ends != sorted(ends) or ends[0] < 1:
            raise ValueError(
                f"milestones={ends!r} of the {name} stream: expected {len(datasets)} numbers, ascending from 1"
            )
        self.name, self.milestones = name, tuple(ends)
        self._experiences: list[Experience] = []
        for index, (dataset, task) in enumerate(zip(datasets, tasks, strict=True)):
            if len(dataset) == 0:  # type: ignore[arg-type]
                raise ValueError(f"experience {index} of the {name} stream has no samples")
            try:
                classes = tuple(labels_of(dataset).unique().tolist())
            except NoClassLabelsError:
                classes = None
            self._experiences.append(Experience(dataset, index, task, classes, self))

    @overload
    def __getitem__(self, index: int) -> Experience: ...
    @overload
    def __getitem__(self, index: slice) -> list[Experience]: ...
    def __getitem__(self, index: int | slice) -> Experience | list[Experience]:
        """One experience, or a list of several."""
        return self._experiences[index]

    def __len__(self) -> int:
        """Number of experiences."""
        return len(self._experiences)

    def __repr__(self) -> str:
        return f"Stream({self.name!r}, {len(self)} experiences)"


@dataclass(frozen=True)
class Benchmark:
    """A training, a test and perhaps a validation stream that belong together.

    Attributes:
        name: What it is called in the catalog.
        train_stream: Experiences to learn from, in order.
        test_stream: Held-out data; experience j tests what training experience j teaches. Streams without tasks test
            by groups of classes: see ``blurry`` and ``online``.
        n_classes: Distinct class labels over the whole stream; 0 where there are none.
        input_shape: Shape of one input; () where inputs are not one array (dictionaries and tuples of several, text).
        valid_stream: Data held out of the training stream, arranged as the test stream is; see ``with_validation``.

    Raises:
        ValueError: Two of its streams have one name, by which metrics tell them apart.
    """

    name: str
    train_stream: Stream
    test_stream: Stream
    n_classes: int
    input_shape: tuple[int, ...]
    valid_stream: Stream | None = None

    def __post_init__(self) -> None:
        """Check that streams can be told apart."""
        streams = dict.fromkeys(filter(None, (self.train_stream, self.test_stream, self.valid_stream)))
        names = [stream.name for stream in streams]
        if len(set(names)) < len(names):
            raise ValueError(
                f"{self.name} has streams named {', '.join(map(repr, names))}: metrics need different names"
            )
