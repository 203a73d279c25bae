"""How bytes and JSON values are spoilt."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from random import Random
from typing import Any

__all__ = ["dumped", "hostile", "mutate_bytes", "mutate_value"]


def mutate_bytes(content: bytes, random: Random, others: Sequence[bytes] = ()) -> bytes:
    """Bytes that differ from these in one way or several; ``others`` are files that may be mixed in."""
    ways = [_flip, _flip, _flip_many, _overwrite, _cut, _append, _move, _drop, _double]
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        if others and random.random() < 0.15:
            content = _splice(content, random.choice(others), random)
        else:
            content = random.choice(ways)(content, random)
    return content


def _span(content: bytes, random: Random) -> tuple[int, int]:
    start = random.randrange(len(content) + 1)
    return start, min(len(content), start + random.choice((1, 4, 8, 64, 512)))


def _flip(content: bytes, random: Random) -> bytes:
    return _flip_bits(content, random, 1)


def _flip_many(content: bytes, random: Random) -> bytes:
    return _flip_bits(content, random, random.randrange(2, 9))


def _flip_bits(content: bytes, random: Random, count: int) -> bytes:
    changed = bytearray(content)
    for _ in range(count if changed else 0):
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _overwrite(content: bytes, random: Random) -> bytes:
    start, stop = _span(content, random)
    filling = random.choice((b"\0", b"\xff", b"\x7f", b" ", b"[", b"9", b"\xc0"))
    return content[:start] + filling * (stop - start) + content[stop:]


def _cut(content: bytes, random: Random) -> bytes:
    return content[: random.randrange(len(content) + 1)]


def _append(content: bytes, random: Random) -> bytes:
    return content + random.choice((b"\0", b"\n", b"}", random.randbytes(random.randrange(1, 200)), content))


def _move(content: bytes, random: Random) -> bytes:
    """Two stretches of one length change places."""
    start, stop = _span(content, random)
    other = random.randrange(len(content) + 1)
    if not (stop <= other <= len(content) - (stop - start)):
        return _flip(content, random)
    end = other + stop - start
    return content[:start] + content[other:end] + content[stop:other] + content[start:stop] + content[end:]


def _drop(content: bytes, random: Random) -> bytes:
    start, stop = _span(content, random)
    return content[:start] + content[stop:]


def _double(content: bytes, random: Random) -> bytes:
    start, stop = _span(content, random)
    return content[:stop] + content[start:stop] + content[stop:]


def _splice(content: bytes, other: bytes, random: Random) -> bytes:
    """The beginning of one and the end of the other, or a stretch of the other in this one's place."""
    at = random.randrange(min(len(content), len(other)) + 1)
    if random.random() < 0.5:
        return content[:at] + other[at:]
    stop = at + random.choice((8, 64, 512))
    return content[:at] + other[at:stop] + content[stop:]


#: Stands for lists in lists in lists, which no encoder would write; ``dumped`` writes them.
DEEP = "lists in lists"


def dumped(value: Any) -> str:
    """A value as JSON, with what Python writes and JSON does not have: NaN, infinity, and any depth."""
    return json.dumps(value, separators=(",", ":")).replace(f'"{DEEP}"', "[" * 100_000 + "]" * 100_000)


def _nested(random: Random) -> Any:
    value: Any = 1
    for _ in range(50):
        value = [value] if random.random() < 0.5 else {"a": value}
    return value


#: What may stand where anything else is expected.
PLAIN: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2**31, 2**63, 2**64, -(2**63), 10**400),
    *(0.5, -0.0, 1e308, 1e-320, float("nan"), float("inf"), -float("inf")),
    *("", "nan", "F32", "__metadata__", "../../etc/passwd", "a/b", "\0"),
    *("[/red]", "<script>", "\ud800", "x" * 5000, "\u202e", "\n\n", DEEP),
    *([], {}, [1], {"a": 1}, [[]], [0, 0], [None], {"": {}}),
)


def hostile(random: Random) -> Any:
    """A value that is not expected."""
    way = random.randrange(len(PLAIN) + 6)
    if way < len(PLAIN):
        return copy.deepcopy(PLAIN[way])
    if way < len(PLAIN) + 2:
        return random.randrange(-(2**40), 2**40)
    return random.random() * 10.0 ** random.randrange(-300, 300) if way < len(PLAIN) + 4 else _nested(random)


def mutate_value(value: Any, random: Random) -> Any:
    """A copy of a JSON value in which something, somewhere, is another."""
    value = copy.deepcopy(value)
    holder, key = None, None
    present = value
    while isinstance(present, dict | list) and present and (holder is None or random.random() < 0.85):
        holder = present
        key = random.choice(list(present)) if isinstance(present, dict) else random.randrange(len(present))
        present = holder[key]
    if holder is None:
        return hostile(random)
    way = random.random()
    if way < 0.55:
        holder[key] = hostile(random)
    elif way < 0.7:
        del holder[key]
    elif way < 0.8 and isinstance(present, int | float) and not isinstance(present, bool):
        holder[key] = random.choice((present + 1, present - 1, -present, present * 2, float(present), str(present)))
    elif isinstance(holder, dict):
        _disturb_mapping(holder, key, random)
    else:
        holder.insert(random.randrange(len(holder) + 1), hostile(random))
    return value


def _disturb_mapping(holder: dict[Any, Any], key: Any, random: Random) -> None:
    other = random.choice(list(holder))
    way = random.randrange(4)
    if way == 0:
        holder[key], holder[other] = holder[other], holder[key]
    elif way == 1:
        holder[random.choice(("", "new", "__proto__", str(key) + ".", "x" * 3000))] = holder.pop(key)
    elif way == 2:
        holder["another"] = hostile(random)
    else:
        holder[key] = copy.deepcopy(holder[other])
