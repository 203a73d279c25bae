"""What a person sees: progress while training, tables after it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from statistics import mean, stdev
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from rwalk.metrics import AccuracyMatrix
from rwalk.training import BasePlugin

__all__ = [
    "ProgressPlugin",
    "listing",
    "matrix",
    "metrics",
    "percent",
    "plain",
    "remark",
    "run_progress",
    "show",
    "show_json",
    "spread",
    "tell",
]

PIPED = 10_000  # columns where there is no terminal
LOSS_EVERY = 20  # iterations between two readings of the loss


class ProgressPlugin(BasePlugin):
    """Shows experience, epoch and loss as they change.

    Args:
        progress: Where to draw.
    """

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self._bar = progress.add_task("", loss="", total=None)

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """A new experience has its own bar length."""
        self.progress.reset(self._bar, total=strategy.train_epochs * len(strategy.dataloader))

    def before_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        """Name the experience and the epoch."""
        experience = strategy.experience
        where = f"experience {experience.current_experience + 1}/{len(experience.origin_stream)}"
        epoch = f"epoch {strategy.clock.train_exp_epochs + 1}/{strategy.train_epochs}"
        self.progress.update(self._bar, description=f"{where}, {epoch}")

    def after_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """Move on; read the loss now and then, since reading it waits for the device."""
        self.progress.update(self._bar, completed=strategy.clock.train_exp_iterations + 1)
        if strategy.clock.train_exp_iterations % LOSS_EVERY == 0:
            self.progress.update(self._bar, loss=f"loss {float(strategy.loss.detach()):.4f}")


@contextmanager
def run_progress(console: Console) -> Iterator[ProgressPlugin]:
    """A live display for one run."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[loss]}"))
    hidden = not console.is_terminal  # elsewhere it would be an empty line, under old versions even if disabled
    progress = Progress(*columns, TimeElapsedColumn(), console=console, transient=True, disable=hidden)
    with nullcontext() if hidden else progress:
        yield ProgressPlugin(progress)


def plain(text: object) -> Text:
    """Text as it is: no part of it is markup, and nothing in it moves the cursor."""
    return Text("".join(sign if sign.isprintable() else "?" for sign in str(text)))


def spread(values: Sequence[float]) -> str:
    """Fractions as mean ± sample standard deviation in per cent; a single one as it is, none as a dash."""
    if not values:
        return "–"
    return percent(mean(values)) + (f" ± {percent(stdev(values))}" if len(values) > 1 else "")


def percent(value: float | None) -> str:
    """A fraction in per cent, or a dash."""
    return "–" if value is None else f"{100 * value:.1f}"


def tell(console: Console, text: object) -> None:
    """A line, however long."""
    console.print(plain(text), highlight=False, soft_wrap=True)


def remark(console: Console, text: object) -> None:
    """A sentence: broken between words on a terminal, in one line elsewhere."""
    console.print(plain(text), highlight=False, soft_wrap=not console.is_terminal)


def show(console: Console, table: Table) -> None:
    """A table: in a frame on a terminal that is wide enough; else plain lines, one a row, however long."""
    if console.is_terminal and _needs(console, table) <= console.width:
        console.print(table)
        return
    if table.title:
        tell(console, table.title)
    table.title, table.box, table.pad_edge = None, None, False
    before, console.width = console.width, PIPED
    with console.capture() as captured:
        console.print(table)
    console.width = before
    for line in captured.get().splitlines():
        console.print(Text(line.rstrip()), highlight=False, soft_wrap=True)


def _needs(console: Console, table: Table) -> int:
    """Columns of a terminal below which figures, or all of the names, would not be seen."""
    room, needed = console.options.update(width=PIPED), 0
    for column in table.columns:
        found = [Measurement.get(console, room, cell) for cell in (column.header, *column.cells)]
        if column.no_wrap:
            needed += max(cell.maximum for cell in found)
        elif column.overflow == "fold":
            needed += column.min_width or 1
        else:
            needed += max(column.min_width or 1, *(cell.minimum for cell in found))
    return needed + (3 * len(table.columns) + 1 if table.box else 2 * len(table.columns))


def show_json(console: Console, content: Any) -> None:
    """JSON and nothing else; what the encoding has not is escaped."""
    text = json.dumps(content, indent=1, ensure_ascii=False)
    try:
        text.encode(console.encoding)
    except UnicodeEncodeError:
        text = json.dumps(content, indent=1)
    console.print(Text(text), highlight=False, soft_wrap=True)


def listing(console: Console, kind: str, entries: Mapping[str, str]) -> None:
    """Names with a line about each."""
    table = Table(kind, "", box=None, header_style="bold", pad_edge=False)
    for name, summary in entries.items():
        table.add_row(plain(name), plain(summary))
    show(console, table)
    console.print()


def matrix(console: Console, accuracies: AccuracyMatrix) -> None:
    """The accuracy matrix in per cent, a row after each experience."""
    rows = accuracies.tolist()
    table = Table(title="Accuracy in %, tested on", title_justify="left")
    table.add_column("after")
    for index in range(len(rows)):
        table.add_column(str(index + 1), justify="right")
    for index, row in enumerate(rows):
        cells = [percent(value) if column <= index else f"[dim]{percent(value)}" for column, value in enumerate(row)]
        table.add_row(str(index + 1), *cells)
    show(console, table)


def metrics(console: Console, values: Mapping[str, float | None]) -> None:
    """Metrics by name, in per cent."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column()
    table.add_column(justify="right")
    for name, value in values.items():
        if value is not None:
            table.add_row(name.replace("_", " "), f"{percent(value)} %")
    show(console, table)
