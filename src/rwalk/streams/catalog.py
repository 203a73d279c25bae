"""Benchmarks by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import Any
from urllib.parse import parse_qsl

from rwalk.streams.arrangements import ARRANGEMENTS, Arrangement, Options
from rwalk.streams.experience import Benchmark
from rwalk.streams.repositories import DATA_DIR, KNOWN
from rwalk.streams.sources import check_source, load_data

__all__ = ["DATA_DIR", "benchmark", "benchmarks", "check_benchmark"]


def _size(text: str) -> tuple[int, int]:
    height, x, width = text.partition("x")
    if not (x and height.isdigit() and width.isdigit()):
        raise ValueError("expected HEIGHTxWIDTH, such as 32x32")
    return int(height), int(width)


SOURCE_OPTIONS: dict[str, Callable[[str], Any]] = {
    "config": str,
    "input_column": str,
    "label_column": str,
    "train_split": str,
    "test_split": str,
    "test_fraction": float,
    "image_size": _size,
    "text_length": int,
    "vocabulary": int,
}


def benchmarks() -> dict[str, str]:
    """Names of all benchmarks of the catalog, each with a line about it."""
    return {
        f"{scenario}-{dataset}": arrangement.line.format(**vars(known))
        for dataset, known in KNOWN.items()
        for scenario, arrangement in ARRANGEMENTS.items()
        if known.kind in arrangement.kinds and not arrangement.several
    }


def benchmark(
    name: str,
    *,
    n_experiences: int | None = None,
    seed: int | None = None,
    task_labels: bool = False,
    class_order: Sequence[int] | None = None,
    sizes: Sequence[int] | None = None,
) -> Benchmark:
    """Build a benchmark by name.

    Args:
        name: One of ``benchmarks()``, or ``SCENARIO:SOURCE`` with a scenario ``split``, ``permuted``, ``rotated``,
            ``blurry`` or ``online`` and any source of ``load_data``, such as ``split:owner/name`` or
            ``permuted:./folder``; with ``domains:A,B`` and ``datasets:A,B`` several sources, one after the other.
            Options of ``load_data`` follow a source as in ``split:owner/name?label_column=kind&image_size=32x32``.
        n_experiences: How many experiences; the benchmark's usual number if None (5, or one a class where there are
            fewer, of data that is not in the catalog). Of ``online`` benchmarks, how many small ones.
        seed: Draws what the benchmark leaves to chance: the order of classes, permutations, angles, arrival. None keeps
            the classes in ascending order, spreads angles evenly and draws the rest from seed 0.
        task_labels: Label each experience as a task of its own instead of 0 throughout.
        class_order: Every class once, in the order in which they arrive.
        sizes: Number of classes in each experience (for ``online``, in each group), for uneven ones.

    Raises:
        ValueError: Unknown name (the nearest are listed), or options that do not fit the benchmark or its data.
        TypeError: ``name`` is no text.
        DataUnavailableError: The data is neither on this machine nor to be had.
        MissingExtraError: The library that reads the data is not installed.

    Example:
        >>> digits = benchmark("split-digits", sizes=[4, 2, 4], task_labels=True)
        >>> len(digits.train_stream), digits.n_classes, digits.input_shape
        (3, 10, (64,))
    """
    arrangement, sources = _parsed(name)
    options = Options(
        n_experiences=n_experiences, seed=seed, task_labels=task_labels, class_order=class_order, sizes=sizes
    )
    for option in arrangement.ignores:
        if getattr(options, option) not in (None, False):
            made = arrangement.line.format(title="the data", n_classes="all", n_experiences="several")
            raise ValueError(f"{option}={getattr(options, option)!r} does not apply to {name} ({made})")
    data = [load_data(source, **settings) for source, settings in sources]
    known = KNOWN.get(sources[0][0])
    usual = min(5, data[0].n_classes) if known is None else known.n_experiences
    return arrangement.build(name, data, replace(options, usual=usual))


def check_benchmark(name: str) -> None:
    """Refuse a name that no benchmark can have, before anything is loaded.

    Raises:
        ValueError: An unknown benchmark, scenario, dataset or option; the nearest names are listed.
        TypeError: ``name`` is no text, such as a ``Benchmark``.
    """
    for source, _ in _parsed(name)[1]:
        check_source(source)


def _parsed(name: str) -> tuple[Arrangement, list[tuple[str, dict[str, Any]]]]:
    """The scenario and the sources that a name stands for."""
    if not isinstance(name, str):
        raise TypeError(
            f"name is a {type(name).__name__}: expected the name of a benchmark, such as 'split-digits'; a Benchmark "
            "is used as it is, and data of your own become one by class_incremental(name, train, test, n_experiences)"
        )
    scenario, colon, rest = name.partition(":")
    if colon:
        if scenario not in ARRANGEMENTS:
            raise ValueError(f"unknown scenario {scenario!r} in {name!r}: choose one of {', '.join(ARRANGEMENTS)}")
        arrangement = ARRANGEMENTS[scenario]
        sources = rest.split(",") if arrangement.several else [rest]
        if not all(sources):
            raise ValueError(f"{name!r} names no data: expected {scenario}:SOURCE, such as {scenario}:mnist")
        for source in sources:
            kind = KNOWN[source].kind if source in KNOWN else arrangement.kinds[0]
            if kind not in arrangement.kinds:
                raise ValueError(f"{name!r}: {source} holds {kind}, {scenario} is for {arrangement.kinds[0]}")
        return arrangement, [_with_options(source) for source in sources]
    if name not in benchmarks():
        near = [known for known in benchmarks() if known.partition("-")[2] == name]
        near = near or get_close_matches(name, benchmarks(), n=5)
        hint = f"did you mean {', '.join(near)}?" if near else f"choose one of {', '.join(benchmarks())},"
        raise ValueError(f"unknown benchmark {name!r}: {hint} or SCENARIO:SOURCE for other data (see `rwalk list`)")
    scenario, _, dataset = name.partition("-")
    return ARRANGEMENTS[scenario], [(dataset, {})]


def _with_options(source: str) -> tuple[str, dict[str, Any]]:
    source, _, query = source.partition("?")
    options: dict[str, Any] = {}
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key not in SOURCE_OPTIONS:
            raise ValueError(f"unknown option {key!r} of {source}: choose from {', '.join(SOURCE_OPTIONS)}")
        try:
            options[key] = SOURCE_OPTIONS[key](value)
        except ValueError as error:
            raise ValueError(f"{key}={value!r} of {source}: {error}") from error
    return source, options
