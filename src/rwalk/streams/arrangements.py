"""The scenarios by name: how each makes a stream of any dataset."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rwalk.streams.blurry import blurry
from rwalk.streams.class_incremental import class_incremental
from rwalk.streams.domains import dataset_incremental, domain_incremental, permuted
from rwalk.streams.experience import Benchmark
from rwalk.streams.online import online
from rwalk.streams.rotated import rotated
from rwalk.streams.splits import Data

__all__ = ["ARRANGEMENTS", "SMALL_EXPERIENCES", "Arrangement", "Options"]

DOMAINS = 10  # permutations or angles, if nothing is said
SMALL_EXPERIENCES = 100  # of a task-free stream, if nothing is said


@dataclass(frozen=True, kw_only=True)
class Options:
    """What can be chosen about a stream: arguments of ``rwalk.streams.benchmark``, and the usual number."""

    usual: int = 5
    n_experiences: int | None = None
    seed: int | None = None
    task_labels: bool = False
    class_order: Sequence[int] | None = None
    sizes: Sequence[int] | None = None

    @property
    def groups(self) -> int | None:
        """How many groups of classes: as asked for, the usual number, or what ``sizes`` says."""
        return self.usual if self.n_experiences is None and self.sizes is None else self.n_experiences

    @property
    def domains(self) -> int:
        """How many permutations or angles."""
        return DOMAINS if self.n_experiences is None else self.n_experiences


@dataclass(frozen=True)
class Arrangement:
    """A scenario: what makes a benchmark of datasets (one, unless ``several``), and a line about it for a listing.

    ``ignores`` are options that do not fit it. A seed always does: runs pass it along, and where nothing is drawn it
    changes nothing.
    """

    build: Callable[[str, list[Data], Options], Benchmark]
    line: str
    kinds: tuple[str, ...] = ("images", "vectors", "text")
    ignores: tuple[str, ...] = ()
    several: bool = False


def _split(name: str, data: list[Data], options: Options) -> Benchmark:
    return _by_class(name, data[0], options, options.groups, options.task_labels)


def _by_class(name: str, data: Data, options: Options, groups: int | None, tasks: bool) -> Benchmark:
    sizes, order, seed = options.sizes, options.class_order, options.seed
    return class_incremental(
        name, data.train, data.test, groups, sizes=sizes, class_order=order, seed=seed, task_labels=tasks
    )


def _permuted(name: str, data: list[Data], options: Options) -> Benchmark:
    seed, tasks = options.seed or 0, options.task_labels
    return permuted(name, data[0].train, data[0].test, options.domains, seed=seed, task_labels=tasks)


def _rotated(name: str, data: list[Data], options: Options) -> Benchmark:
    seed, tasks = options.seed, options.task_labels
    return rotated(name, data[0].train, data[0].test, options.domains, seed=seed, task_labels=tasks)


def _blurry(name: str, data: list[Data], options: Options) -> Benchmark:
    order, seed = options.class_order, options.seed
    return blurry(name, data[0].train, data[0].test, options.groups, sizes=options.sizes, class_order=order, seed=seed)


def _online(name: str, data: list[Data], options: Options) -> Benchmark:
    split = _by_class(name, data[0], options, options.usual if options.sizes is None else None, False)
    usual = min(SMALL_EXPERIENCES, len(data[0].train))
    count = usual if options.n_experiences is None else options.n_experiences
    return online(split, n_experiences=count, seed=options.seed or 0, name=name)


def _domains(name: str, data: list[Data], options: Options) -> Benchmark:
    return domain_incremental(name, data, task_labels=options.task_labels)


def _datasets(name: str, data: list[Data], options: Options) -> Benchmark:
    return dataset_incremental(name, data, task_labels=options.task_labels)


_CLASSES = ("class_order", "sizes")
_GIVEN = ("n_experiences", *_CLASSES)

ARRANGEMENTS = {
    "split": Arrangement(_split, "{title}, {n_classes} classes in {n_experiences} experiences"),
    "permuted": Arrangement(
        _permuted,
        f"{{title}} under {DOMAINS} (or more) fixed random permutations of its inputs",
        kinds=("images", "vectors"),
        ignores=_CLASSES,
    ),
    "rotated": Arrangement(
        _rotated,
        f"{{title}} at {DOMAINS} (or more) angles from 0 to below 180 degrees",
        kinds=("images",),
        ignores=_CLASSES,
    ),
    "blurry": Arrangement(
        _blurry,
        "{title}, {n_classes} classes in {n_experiences} experiences, a tenth of each class in the others",
        ignores=("task_labels",),
    ),
    "online": Arrangement(
        _online,
        f"{{title}}, {{n_experiences}} groups of classes in {SMALL_EXPERIENCES} small experiences without tasks",
        ignores=("task_labels",),
    ),
    "domains": Arrangement(_domains, "several datasets of the same classes", ignores=_GIVEN, several=True),
    "datasets": Arrangement(_datasets, "several datasets with classes of their own", ignores=_GIVEN, several=True),
}
