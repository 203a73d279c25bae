"""State files and state dicts: each mutated one is refused and leaves no trace, or loads as what was saved."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor, nn

from fuzz import Case, FindingError
from fuzz.mutations import dumped, hostile, mutate_bytes, mutate_value
from rwalk import RWalk, RWalkConfig, StateError, inspect_state
from rwalk.core.container import OPENING, _sealed
from rwalk.core.files import load_state

__all__ = ["dictionaries", "files", "old_files", "resealed_files"]

CONFIGS = (
    RWalkConfig(delta_t=4, damping=1e-3),
    RWalkConfig(delta_t=3, state_dtype="bfloat16", combine="sum"),
    RWalkConfig.avalanche(delta_t=5),
    RWalkConfig(delta_t=1),
)
OLD = Path(__file__).parent.parent / "tests" / "core" / "state_files"


#: A subject, the file that it wrote, and what reading it gives, bit for bit.
Original = tuple["Subject", bytes, bytes]


class Subject:
    """A model that has learned, its RWalk, and what reading the right file into it gives.

    Args:
        config: Of the RWalk.
        seed: Of model and data.
        steps: After the first task.
    """

    def __init__(self, config: RWalkConfig, seed: int = 0, steps: int = 6) -> None:
        torch.manual_seed(seed)
        self.model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.05)
        self.config = config
        self.rwalk = RWalk(self.model, self.optimizer, config)
        self.train(9)
        self.rwalk.consolidate()
        self.train(steps)

    def train(self, steps: int) -> None:
        """A few steps on random data."""
        for _ in range(steps):
            self.optimizer.zero_grad()
            self.model(torch.randn(4, 3)).square().mean().backward()
            self.optimizer.step()

    def bits(self) -> bytes:
        """The state of the object, bit for bit."""
        return bits_of(self.rwalk.state_dict())

    def read(self, path: Path) -> bytes:
        """What a new RWalk holds that has read a file."""
        optimizer = torch.optim.SGD(self.model.parameters(), lr=0.05)
        return bits_of(RWalk.load(path, self.model, optimizer, attach=False).state_dict())


def bits_of(value: Any) -> bytes:
    """Numbers and tensors of a state, bit for bit and in order."""
    if isinstance(value, Tensor):
        elements = value.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        return str((value.dtype, tuple(value.shape))).encode() + elements
    if isinstance(value, dict):
        return b"".join(str(key).encode() + b"=" + bits_of(found) + b";" for key, found in value.items())
    return repr(value).encode()


def files(folder: Path) -> Case:
    """Files as ``save`` writes them; whatever is changed in them must be noticed."""
    originals = _originals(folder)

    def mutate(index: int, random: Random) -> bytes:
        content = originals[index][1]
        if random.random() < 0.3:
            return with_header(content, lambda header: mutate_value(header, random))
        return mutate_bytes(content, random, [other for _, other, _ in originals])

    return _case(folder, originals, mutate, verified=True)


def resealed_files(folder: Path) -> Case:
    """Headers whose checksum is right for what they say: refused, or a state that can be gone on from."""
    originals = _originals(folder)

    def mutate(index: int, random: Random) -> bytes:
        return with_header(originals[index][1], lambda header: _mutate_header(header, random), seal=True)

    return _case(folder, originals, mutate, verified=False)


def old_files(folder: Path) -> Case:
    """Files of schema 1, which have no checksums: refused, or a state that can be gone on from."""
    subject, contents = Subject(CONFIGS[0]), [path.read_bytes() for path in sorted(OLD.glob("schema-1*.safetensors"))]
    originals = [(subject, content, b"") for content in contents]

    def mutate(index: int, random: Random) -> bytes:
        if random.random() < 0.5:
            return with_header(contents[index], lambda header: _mutate_header(header, random))
        return mutate_bytes(contents[index], random, contents)

    return _case(folder, originals, mutate, verified=False)


def dictionaries(folder: Path) -> Case:
    """State dicts, as they come out of somebody's checkpoint."""
    subjects = [Subject(config) for config in CONFIGS]
    states = [subject.rwalk.state_dict() for subject in subjects]
    subjects[0].rwalk.save(folder / "compact", compact=True)
    subjects.append(subjects[0])
    states.append(load_state(folder / "compact"))

    def case(random: Random) -> str:
        index = random.randrange(len(states))
        subject, state = subjects[index], _mutate_state(states[index], random)
        return _attempt(subject, lambda: subject.rwalk.load_state_dict(state, strict=random.random() < 0.7))

    return case


def _originals(folder: Path) -> list[Original]:
    found = []
    for index, config in enumerate(CONFIGS):
        subject = Subject(config, steps=index + 4)
        for compact in (False, True) if index < 2 else (False,):
            path = folder / f"{index}-{compact}"
            subject.rwalk.save(path, compact=compact)
            found.append((subject, path.read_bytes(), subject.read(path)))
    return found


def _case(
    folder: Path,
    originals: list[tuple[Subject, bytes, bytes]],
    mutate: Callable[[int, Random], bytes],
    *,
    verified: bool,
) -> Case:
    path, wanted = folder / "mutated", {whole for _, _, whole in originals}

    def case(random: Random) -> str:
        index = random.randrange(len(originals))
        subject, _, _ = originals[index]
        mutated = mutate(index, random)
        path.write_bytes(mutated)
        if random.random() < 0.1:
            try:
                inspect_state(path)
            except StateError:
                return "inspect refused"
            return "inspected"
        if not verified:
            return _attempt(subject, lambda: subject.rwalk.load_state_dict(load_state(path)))
        if random.random() < 0.3:
            return _attempt(subject, lambda: subject.rwalk.load_state_dict(load_state(path)), wanted)
        try:
            found = subject.read(path)
        except StateError:
            return "refused"
        if found not in wanted:
            raise FindingError("a changed file was loaded as another state")
        return "the same state"

    return case


def _attempt(subject: Subject, load: Callable[[], object], wanted: set[bytes] | None = None) -> str:
    """Load into an object that has a state; ``wanted``: what alone may come of it."""
    before, kept = subject.bits(), copy.deepcopy(subject.rwalk.state_dict())
    try:
        load()
    except StateError:
        if subject.bits() != before:
            raise FindingError("a refused load has changed the object") from None
        return "refused"
    state = subject.rwalk.state_dict()
    if wanted is not None and subject.bits() not in wanted:
        raise FindingError("a changed file was loaded as another state")
    for name, values in state["parameters"].items():
        for quantity, value in values.items():
            if isinstance(value, Tensor) and not bool(value.isfinite().all()):
                raise FindingError(f"{quantity} of {name} is not finite")
            if quantity in ("fisher", "importance") and bool((value < 0).any()):
                raise FindingError(f"{quantity} of {name} is negative")
    subject.rwalk.load_state_dict(state)  # it can be gone on from
    same = subject.bits() == before
    subject.rwalk.load_state_dict(kept)
    if subject.bits() != before:
        raise FindingError("the first state does not come back")
    return "the same state" if same else "another valid state"


def with_header(content: bytes, change: Callable[[Any], Any], *, seal: bool = False) -> bytes:
    """A safetensors file with another header; ``seal``: with the checksum that belongs to it."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"]["rwalk"] = json.loads(header["__metadata__"]["rwalk"])
    changed = change(header)
    metadata = changed.get("__metadata__") if isinstance(changed, dict) else None
    if isinstance(metadata, dict) and "rwalk" in metadata:
        metadata["rwalk"] = dumped(metadata["rwalk"])
    text = dumped(changed).encode()
    if seal and text.startswith(OPENING):
        text = _sealed(text)
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


def _mutate_header(header: Any, random: Random) -> Any:
    """Mostly what is rwalk's own in it."""
    if random.random() < 0.3:
        return mutate_value(header, random)
    metadata = {**header["__metadata__"], "rwalk": mutate_value(header["__metadata__"]["rwalk"], random)}
    return {"__metadata__": metadata, **{key: value for key, value in header.items() if key != "__metadata__"}}


def _mutate_state(state: dict[str, Any], random: Random) -> Any:
    state = copy.deepcopy(state)
    if random.random() < 0.3:
        return mutate_value(state, random)
    values = random.choice(list(state["parameters"].values()))
    quantity = random.choice(list(values))
    value = values[quantity]
    if isinstance(value, Tensor) and random.random() < 0.8:
        values[quantity] = _mutate_tensor(value, values, random)
    else:
        values[quantity] = hostile(random)
    return state


def _mutate_tensor(value: Tensor, others: dict[str, Any], random: Random) -> Any:
    ways: list[Callable[[], Any]] = [
        lambda: _with_element(value, random),
        lambda: random.choice([other for other in others.values() if isinstance(other, Tensor)]),
        lambda: value.to(random.choice((torch.float64, torch.float16, torch.int64, torch.complex64, torch.bool))),
        lambda: value[..., :1],
        lambda: value.reshape(-1),
        lambda: value.to("meta"),
        value.to_sparse,
        lambda: value.to(torch.float64).mul(1e300),
        lambda: torch.empty(0),
        value.tolist,
    ]
    return random.choice(ways)()


def _with_element(value: Tensor, random: Random) -> Tensor:
    if value.is_floating_point():
        other = random.choice((float("nan"), float("inf"), -float("inf"), -1.0))
        value.view(-1)[random.randrange(value.numel())] = other
    return value
