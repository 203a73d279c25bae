"""A search for λ as a piece of work, stored so that it is not done again, and the λ that several of them name."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

from rwalk.errors import CheckpointError
from rwalk.experiments.methods import METHODS
from rwalk.experiments.plasticity import Decay, decayed, last_accepted
from rwalk.experiments.pool import Outcome, Work, run_name
from rwalk.experiments.racing import Race, in_front, raced
from rwalk.experiments.results import RunResult, checksum, read_json, write_json
from rwalk.experiments.spec import RunSpec
from rwalk.metrics import AccuracyMatrix

__all__ = ["Search", "chosen_strength"]

FILE = "search.json"


def chosen_strength(how: Decay | Race, found: Sequence[Mapping[str, Any]]) -> float:
    """The one λ that searches with several seeds name."""
    return in_front(found) if isinstance(how, Race) else last_accepted(found)


@dataclass(frozen=True)
class Search(Work):
    """A search as a piece of work, kept in its folder as ``search.json``."""

    how: Decay | Race = field(default_factory=Decay)

    @classmethod
    def of(cls, spec: RunSpec, how: Decay | Race, runs: Path) -> Search:
        """The search of a spec, in its own folder under ``runs``."""
        plan = blake2b(json.dumps(asdict(how)).encode(), digest_size=4).hexdigest()
        strength = str(METHODS[spec.method].strength).partition(".")
        bare = spec.model_copy(update={strength[0]: {**getattr(spec, strength[0]), strength[2]: how.start}})
        return cls("search", bare, runs.absolute() / f"search-{plan}-{run_name(bare)}", how=how)

    def found(self) -> Outcome | None:
        """What is stored of it."""
        if self.folder is None or not (self.folder / FILE).is_file():
            return None
        try:
            stored = read_json(self.folder / FILE)
            matrix = AccuracyMatrix.from_rows(stored["accuracy_matrix"], stored["untrained"])
            result = RunResult(self.spec, matrix, float(stored["seconds"]))
        except (CheckpointError, KeyError, TypeError, ValueError, OSError):
            return None
        return Outcome(self.label, self.spec.seed, result, reused=True, more=stored)

    def carry_out(self, notes: list[str]) -> Outcome:  # noqa: ARG002 - the signature of all work
        """Do it, and store it."""
        before = self.found()
        if before is not None:
            return before
        found = raced(self.spec, self.how) if isinstance(self.how, Race) else decayed(self.spec, self.how)
        told = {key: value for key, value in vars(found).items() if key not in ("matrix", "seconds")}
        content = {
            "config": self.spec.canonical(),
            "search": asdict(self.how),
            **told,
            "seconds": round(found.seconds, 3),
            "accuracy_matrix": found.matrix.tolist(),
            "untrained": None if found.matrix.untrained is None else found.matrix.untrained.tolist(),
            **found.matrix.summary(),
        }
        content = json.loads(json.dumps(content))
        content["checksum"] = checksum(content)
        write_json(content, (self.folder or Path()) / FILE)
        result = RunResult(self.spec, found.matrix, found.seconds)
        return Outcome(self.label, self.spec.seed, result, more=content)
