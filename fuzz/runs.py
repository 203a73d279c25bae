"""Checkpoints, results and specs: each mutated one is refused in the documented way, or is what was written."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from random import Random
from typing import Any

import torch
import yaml
from torch import nn

from fuzz import Case, FindingError
from fuzz.mutations import dumped, mutate_bytes, mutate_value
from fuzz.states import bits_of
from rwalk.errors import CheckpointError, StateError
from rwalk.experiments import Comparison, RunResult, RunSpec, load_comparison, load_spec, read_result, write_result
from rwalk.experiments.results import SCHEMA_VERSION, checksum
from rwalk.metrics import AccuracyMatrix
from rwalk.streams import Benchmark, TensorData, class_incremental
from rwalk.training import CheckpointPlugin, Naive, ReplayPlugin, RWalkPlugin
from rwalk.training.plugins.checkpoints import checkpoints as stored
from rwalk.training.sealed import KEY

__all__ = ["checkpoints", "resealed_checkpoints", "results", "specs"]


def checkpoints(folder: Path) -> Case:
    """Checkpoints as they are written; whatever is changed in them must be noticed."""
    contents, strategy, wanted = _checkpoints(folder)
    path = folder / "one" / "checkpoint-000000000007.safetensors"

    def case(random: Random) -> str:
        path.write_bytes(mutate_bytes(random.choice(contents), random, contents))
        plugin = CheckpointPlugin(path.parent, every=0)
        try:
            found = plugin.newest()
        except CheckpointError:
            return "refused"
        if found is None or bits_of(found["moment"]["strategy"]) not in wanted:
            raise FindingError("a changed checkpoint was read as another one")
        plugin.resume(strategy, found)
        return "the same checkpoint"

    return case


def resealed_checkpoints(folder: Path) -> Case:
    """Checkpoints whose checksum is right for what they say: refused, or something that training can go on from."""
    contents, _, _ = _checkpoints(folder)
    path = folder / "one" / "checkpoint-000000000007.safetensors"

    def case(random: Random) -> str:
        path.write_bytes(_resealed(random.choice(contents), random))
        strategy, plugin, stream = _strategy(path.parent)
        try:
            learned = plugin.resume(strategy)
            for experience in stream.train_stream[learned:]:
                strategy.train(experience)
        except (CheckpointError, StateError):
            return "refused"
        return "gone on from"

    return case


def results(folder: Path) -> Case:
    """Results: refused, or as they were; with a checksum that fits, refused or a run that can be stored."""
    matrix = AccuracyMatrix(3)
    for task, row in enumerate([[0.9, 0.1, 0.0], [0.5, 0.8, 0.1], [0.4, 0.6, 0.7]]):
        matrix.record(task, row)
    spec = RunSpec(benchmark="split-digits", method="rwalk", n_experiences=3)
    course = {"experience": 0, "step": [5], "loss": [1.5], "penalty": [None]}
    columns = ("importance", "fisher", "score", "held", "drift")
    layer = {"name": "0", "weights": 8, **{column: [0.5] for column in columns}}
    record = {"course": [course], "looks": [0], "layers": [layer]}
    original = RunResult(spec, matrix, 1.25, (None, None, 0.9), record).to_dict()
    path = write_result(original, folder)
    content, old = path.read_bytes(), {**original, "schema_version": SCHEMA_VERSION - 1}
    del old["checksum"]

    def case(random: Random) -> str:
        way = random.random()
        if way < 0.4:
            path.write_bytes(mutate_bytes(content, random))
        elif way < 0.5:
            path.write_text(dumped(mutate_value(old, random)), encoding="utf-8", errors="replace")
        else:
            changed = mutate_value(original, random)
            if isinstance(changed, dict) and way < 0.8:
                changed["checksum"] = _checksum(changed)
            path.write_text(dumped(changed), encoding="utf-8", errors="replace")
        try:
            found = read_result(folder)
            result = RunResult.from_dict(found)
        except CheckpointError as error:
            _one_line(error)
            return "refused"
        if way < 0.4 and result.to_dict()["accuracy_matrix"] != original["accuracy_matrix"]:
            raise FindingError("a changed result was believed")
        write_result(result.to_dict(), folder)
        return "the same result" if json.loads(dumped(original)) == found else "another valid result"

    return case


def specs(folder: Path) -> Case:
    """Specs and comparisons in YAML: refused in a line, or a spec that can be written and read again."""
    run = RunSpec(benchmark="split-digits", method="rwalk", exemplars=3, class_order=tuple(range(10))).canonical()
    base = {"benchmark": "split-digits", "epochs": 2}
    plan = {"seeds": [0, 1], "base": base, "runs": {"a": {"method": "rwalk"}, "b": {"method": "ewc++"}}}
    path, kinds = folder / "spec.yaml", ((load_spec, run), (load_comparison, plan))

    def case(random: Random) -> str:
        load, values = random.choice(kinds)
        if random.random() < 0.6:
            text = _written(mutate_value(values, random), random)
        else:
            text = mutate_bytes(yaml.safe_dump(values).encode(), random).decode("utf-8", errors="surrogateescape")
        path.write_bytes((text + _aliases(random)).encode("utf-8", errors="surrogateescape"))
        try:
            found: Any = load(path)
        except ValueError as error:
            _one_line(error)
            return "refused"
        if isinstance(found, Comparison):
            found.specs()
            return "a comparison"
        if RunSpec(**found.canonical()).canonical() != found.canonical():
            raise FindingError("a spec is another one when it is read again")
        return "a spec"

    return case


def _strategy(folder: Path, every: int = 0) -> tuple[Naive, CheckpointPlugin, Benchmark]:
    torch.manual_seed(0)
    x = torch.randn(24, 4)
    data = TensorData(x, torch.arange(4).repeat(6))
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 4))
    plugin = CheckpointPlugin(folder, every=every, keep=10)
    plugins = [RWalkPlugin(delta_t=2), ReplayPlugin(per_class=2), plugin]
    optimizer = torch.optim.Adam(model.parameters())
    strategy = Naive(model=model, optimizer=optimizer, train_mb_size=4, train_epochs=2, plugins=plugins)
    return strategy, plugin, class_incremental("toy", data, data, 2)


def _checkpoints(folder: Path) -> tuple[list[bytes], Naive, set[bytes]]:
    torch.set_num_threads(1)
    strategy, plugin, stream = _strategy(folder / "several", every=3)
    for experience in stream.train_stream:
        strategy.train(experience)
    (folder / "one").mkdir()
    paths = stored(plugin.folder)
    contents = [path.read_bytes() for path in paths]
    wanted = set()
    for path in paths:
        (folder / "alone").mkdir(exist_ok=True)
        copy = folder / "alone" / path.name
        copy.write_bytes(path.read_bytes())
        found = CheckpointPlugin(copy.parent, every=0).newest()
        copy.unlink()
        wanted.add(bits_of((found or {})["moment"]["strategy"]))
    return contents, strategy, wanted


def _resealed(content: bytes, random: Random) -> bytes:
    body = content.partition(b"\n")[2]
    if random.random() < 0.2:
        body = mutate_bytes(body, random)
    else:
        length = int.from_bytes(body[:8], "little")
        header = json.loads(body[8 : 8 + length])
        values = mutate_value(json.loads(header["__metadata__"][KEY]), random)
        header["__metadata__"][KEY] = dumped(values)
        text = dumped(header).encode("utf-8", errors="replace")
        text += b" " * (-len(text) % 8)
        body = len(text).to_bytes(8, "little") + text + body[8 + length :]
    digest = blake2b(body, digest_size=32).hexdigest()
    return f"rwalk-sealed 1 checkpoint {len(body)} {digest}\n".encode() + body


def _checksum(changed: dict[str, Any]) -> str:
    try:
        return checksum(json.loads(dumped(changed)))
    except (ValueError, RecursionError, OverflowError):
        return ""


def _written(values: Any, random: Random) -> str:
    """As YAML, or as JSON, which is YAML too."""
    writers: tuple[Callable[[Any], str], ...] = (yaml.safe_dump, dumped)
    try:
        return random.choice(writers)(values)
    except (yaml.YAMLError, ValueError):
        return dumped(values)


def _aliases(random: Random) -> str:
    """Now and then, lists of lists of aliases."""
    if random.random() > 0.1:
        return ""
    lines = ["\nz0: &z0 [1, 1, 1]"]
    lines += [f"z{i}: &z{i} [{', '.join([f'*z{i - 1}'] * random.randrange(2, 9))}]" for i in range(1, 12)]
    return "\n".join(lines) + "\n"


def _one_line(error: Exception) -> None:
    if len(str(error).splitlines()) > 1 or len(str(error)) > 5000:
        raise FindingError(f"an error of {len(str(error))} characters in {len(str(error).splitlines())} lines")
