"""Checkpoints of a whole training, and going on from one."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from rwalk.errors import CheckpointError, RWalkError
from rwalk.training.events import BasePlugin
from rwalk.training.moments import Moment
from rwalk.training.sealed import read_sealed, write_sealed

__all__ = ["CheckpointPlugin", "Stopped", "checkpoints"]

log = logging.getLogger(__name__)

KIND = "checkpoint"
NAME = re.compile(r"checkpoint-(\d{12})\.safetensors")


class Stopped(BaseException):
    """Training has ended where ``CheckpointPlugin.stop`` asked it to, with a checkpoint."""


class CheckpointPlugin(BasePlugin):
    """Writes a checkpoint every so many batches, from which training goes on as if it had never stopped.

    A checkpoint holds model, optimizer, scheduler, scaler, RWalk's state, exemplars, experience, epoch and batch, all
    random generators, metrics and clock. On the CPU, the training that goes on from it ends bit for bit as the one that
    was not interrupted: also in the midst of an epoch or of a window of RWalk.

    Args:
        folder: Holds the checkpoints and nothing else.
        every: Batches from one checkpoint to the next; 0 writes only where ``stop`` asks for it.
        keep: How many of the newest are kept. A damaged one is passed over for the one before.
        more: What else goes into each: called then, returns tensors, numbers and strings (see ``resume``).

    Raises:
        ValueError: ``every`` below 0 or ``keep`` below 1.
        RWalkError: In training: several processes, or two of these plugins.

    Attributes:
        found: What ``more`` returned for the checkpoint that was resumed from; None without one.

    Example:
        >>> import tempfile, torch
        >>> from rwalk.streams import benchmark
        >>> from rwalk.training import Naive
        >>> stream = benchmark("split-digits").train_stream
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model = torch.nn.Linear(64, 10)
        ...     checkpoint = CheckpointPlugin(folder, every=10)
        ...     strategy = Naive(
        ...         model=model,
        ...         optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        ...         train_mb_size=32,
        ...         plugins=[checkpoint],
        ...     )
        ...     learned = checkpoint.resume(strategy)  # 0 at first; in a process that goes on, experiences learned
        ...     for experience in stream[learned:]:
        ...         _ = strategy.train(experience)
        ...     len(checkpoints(folder))
        3
    """

    def __init__(
        self, folder: str | Path, *, every: int, keep: int = 3, more: Callable[[], dict[str, Any]] | None = None
    ) -> None:
        if type(every) is not int or every < 0:
            raise ValueError(f"every={every!r}: expected a number of batches, or 0 for none by itself")
        if type(keep) is not int or keep < 1:
            raise ValueError(f"keep={keep!r}: expected at least 1")
        self.folder, self.every, self.keep, self.more = Path(folder), every, keep, more
        self.found: dict[str, Any] | None = None
        self._stop, self._learning = False, False

    def stop(self) -> bool:
        """Have training end with a checkpoint once the batch at hand is learned. It may be called at any moment.

        Returns:
            Whether batches are being learned now; if not, ``Stopped`` is raised before the next evaluation batch, or
            after the next training batch.
        """
        self._stop = True
        return self._learning

    def resume(self, strategy: Any, found: dict[str, Any] | None = None) -> int:
        """Load the newest checkpoint that is whole into a strategy that is made like the one that wrote it.

        Args:
            strategy: With this plugin in it.
            found: What ``newest`` has returned, where it was looked at before.

        Returns:
            How many experiences to leave out: the next call of ``train`` goes on in the midst of the one after them, or
            of one of those after it if ``train`` is given several. 0 without a checkpoint.

        Raises:
            CheckpointError: There are checkpoints, and none is whole; or one does not fit the strategy, in which
                nothing has changed then. ``train`` may raise it too, or ``StateError``, until it has gone on; the
                strategy is of no use any more after that.
        """
        found = self.newest() if found is None else found
        if found is None:
            return 0
        moment = Moment(found["moment"])
        moment.begin(strategy)
        self.found = found["more"]
        return moment.learned

    def newest(self) -> dict[str, Any] | None:
        """The newest checkpoint that is whole; None if there is none at all. Each damaged one is named in the log.

        Raises:
            CheckpointError: There are checkpoints, and none is whole.
        """
        paths = checkpoints(self.folder)
        reasons = []
        for path in paths:
            try:
                return _checked(read_sealed(path, KIND), path)
            except (CheckpointError, OSError) as error:  # noqa: PERF203 - a few files
                reasons.append(str(error))
                log.warning("%s; going on from the checkpoint before it", error)
        if paths:
            raise CheckpointError(f"none of {len(paths)} checkpoints in {self.folder} is whole: {reasons[0]}")
        return None

    def clear(self) -> None:
        """Remove all checkpoints, and the folder if nothing else is in it: the training is over."""
        for path in checkpoints(self.folder):
            path.unlink(missing_ok=True)
        with suppress(OSError):
            self.folder.rmdir()

    def write(self, strategy: Any) -> Path:
        """Write a checkpoint now, which is to be between two batches, and remove those that are too many.

        Raises:
            OSError: It could not be written; those before it are as they were.
            TypeError: A plugin keeps something that a checkpoint cannot hold.
        """
        content = {"moment": Moment.of(strategy).state, "more": {} if self.more is None else self.more()}
        path = self.folder / f"checkpoint-{strategy.clock.train_iterations:012d}.safetensors"
        write_sealed(path, KIND, content)
        for old in checkpoints(self.folder)[self.keep :]:
            old.unlink(missing_ok=True)
        return path

    def before_training(self, strategy: Any, **kwargs: Any) -> None:
        """Be told of each batch."""
        if sum(isinstance(other, CheckpointPlugin) for other in strategy.plugins) > 1:
            raise RWalkError(f"{type(strategy).__name__} has two CheckpointPlugins: keep one")
        processes = getattr(getattr(strategy.engine, "accelerator", None), "num_processes", 1)
        if processes > 1:
            raise RWalkError(f"CheckpointPlugin keeps the state of one process, and here are {processes}")
        strategy.between_batches(self._after_batch)

    def before_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        """From here on there are batches."""
        self._learning = True

    def after_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        """There are no more batches."""
        self._learning = False

    def after_training(self, strategy: Any, **kwargs: Any) -> None:
        """Nor after training has been stopped."""
        self._learning = False

    def before_eval_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """An evaluation is not waited for."""
        if self._stop:
            raise Stopped

    def _after_batch(self, strategy: Any) -> None:
        due = self.every and strategy.clock.train_iterations % self.every == 0
        if (due or self._stop) and strategy.engine.at_rest:
            self.write(strategy)
            if self._stop:
                self._learning = False
                raise Stopped


def checkpoints(folder: str | Path) -> list[Path]:
    """The checkpoints in a folder, the newest first: by the number of batches, whatever clocks say."""
    if not Path(folder).is_dir():
        return []
    return sorted((path for path in Path(folder).iterdir() if NAME.fullmatch(path.name)), reverse=True)


def _checked(content: Any, path: Path) -> dict[str, Any]:
    """What a sealed file holds, if it has the parts of a checkpoint."""
    try:
        moment = Moment(content["moment"])
        parts = ("strategy", "plugins", "engine", "stop", "loss", "pass", "random")
        missing = [part for part in parts if part not in moment.state]
        if missing or not isinstance(content["more"], dict) or moment.epoch < 0 or moment.learned < 0:
            raise CheckpointError(f"{path} lacks parts of a checkpoint")
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        raise CheckpointError(f"{path} is no checkpoint of a training") from None
    return dict(content)
