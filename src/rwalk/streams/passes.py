"""A pass over batches that can be left in the midst of it and taken up again, in another process too."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rwalk.errors import CheckpointError
from rwalk.random_state import random_state, random_state_kept, set_random_state

__all__ = ["Pass"]


class Pass:
    """One pass over a loader's batches, which knows where it stands.

    A loader that has ``state_dict`` and ``load_state_dict`` (those of ``torchdata``, and this package's own where
    batches depend on more than an order) says by itself where it stands. Any other is begun again with the random
    generators as they were, and as many batches are drawn and thrown away: exact for loaders that draw their order when
    a pass begins, as torch's do, with and without workers.

    Args:
        loader: Gives the batches.
        state: Where to go on; from the beginning if None. Taking it up again draws nothing from the generators as they
            are now.

    Example:
        >>> import torch
        >>> from torch.utils.data import DataLoader
        >>> loader = DataLoader(torch.arange(6), shuffle=True)
        >>> begun = Pass(loader)
        >>> first = [int(next(begun)) for _ in range(2)]
        >>> state, rest = begun.state_dict(), [int(batch) for batch in begun]
        >>> [int(batch) for batch in Pass(loader, state)] == rest, sorted(first + rest)
        (True, [0, 1, 2, 3, 4, 5])
    """

    def __init__(self, loader: Any, state: dict[str, Any] | None = None) -> None:
        self.loader, self.taken = loader, 0
        inner = getattr(loader, "base_dataloader", loader)  # Accelerate's has the methods, whatever it wraps
        self._own = hasattr(inner, "state_dict") and hasattr(loader, "load_state_dict")
        self._began: dict[str, Any] | None = None
        self._batches: Iterator[Any] = iter(())
        if state is not None and self._own:
            loader.load_state_dict(state["own"])
        elif state is not None:
            self._go_on(state)
            return
        elif not self._own:
            self._began = random_state()
        self._batches = iter(loader)
        self.taken = 0 if state is None else state["taken"]

    def _go_on(self, state: dict[str, Any]) -> None:
        with random_state_kept():
            try:
                self._began, self.taken = state["began"], int(state["taken"])
                set_random_state(state["began"])
            except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
                raise CheckpointError(f"the checkpoint tells no place in a pass ({type(error).__name__})") from error
            self._batches = iter(self.loader)
            for _ in range(self.taken):
                next(self._batches, None)

    def __iter__(self) -> Iterator[Any]:
        """Itself."""
        return self

    def __next__(self) -> Any:
        """The next batch."""
        batch = next(self._batches)
        self.taken += 1
        return batch

    def state_dict(self) -> dict[str, Any]:
        """Where it stands, between two batches."""
        if self._own:
            return {"taken": self.taken, "own": self.loader.state_dict()}
        return {"taken": self.taken, "began": self._began}
