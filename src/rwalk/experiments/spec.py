"""What a run is, as one validated object that a file can hold."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from rwalk.core import RWalkConfig
from rwalk.experiments.methods import METHODS
from rwalk.streams import benchmarks

__all__ = ["RunSpec", "load_spec"]

#: Training settings for each benchmark where the spec names none. Chosen on data held out of the training sets;
#: permuted-mnist's are untuned.
DEFAULTS: dict[str, dict[str, Any]] = {
    "split-digits": {
        "epochs": 30,
        "batch_size": 32,
        "replay_batch_size": 128,
        "lr": 1e-3,
        "rwalk": {"ewc_lambda": 3.0},
    },
    "split-mnist": {"epochs": 1, "batch_size": 64, "replay_batch_size": 384, "lr": 3e-4, "rwalk": {"ewc_lambda": 10.0}},
    "permuted-mnist": {"epochs": 1, "batch_size": 64, "lr": 1e-3, "rwalk": {"ewc_lambda": 1.0}},
}


class RunSpec(BaseModel):
    """One training run over one stream.

    Attributes:
        benchmark: Name in the catalog.
        method: Name in the registry of methods.
        exemplars: Exemplars kept of each class and replayed; 0 for none.
        replay_batch_size: Remembered samples in a batch, beside ``batch_size`` new ones; as many as new ones if None.
        rwalk: Settings of ``RWalkConfig`` by name; used by the methods that need them.
        n_experiences: Into how many experiences the data is split; the benchmark's usual number if None.
        epochs: Passes over each experience.
        batch_size: New samples in a batch.
        lr: Learning rate.
        optimizer: ``adam``, ``adamw``, ``sgd`` or ``momentum`` (SGD with momentum 0.9).
        hidden: Widths of the MLP's hidden layers.
        seed: Seeds weights, batches, exemplars, and with ``shuffle_classes`` the stream.
        shuffle_classes: Draw the order of classes (or the permutations) from the seed.
        device: Torch device.
        threads: Threads of the CPU; one is fastest for small networks, and gives the same result on any machine.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    benchmark: str
    method: str
    exemplars: int = Field(default=0, ge=0)
    replay_batch_size: int | None = Field(default=None, ge=1)
    rwalk: dict[str, Any] = Field(default_factory=dict)
    n_experiences: int | None = Field(default=None, ge=1)
    epochs: int = Field(default=1, ge=1)
    batch_size: int = Field(default=64, ge=1)
    lr: float = Field(default=1e-3, gt=0.0, allow_inf_nan=False)
    optimizer: Literal["adam", "adamw", "sgd", "momentum"] = "adam"
    hidden: tuple[Annotated[int, Field(ge=1)], ...] = (256, 256)
    seed: int = Field(default=0, ge=0, lt=2**63)
    shuffle_classes: bool = False
    device: str = "cpu"
    threads: int = Field(default=1, ge=1, le=1024)

    @model_validator(mode="before")
    @classmethod
    def _fill_in_the_benchmarks_defaults(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        usual = DEFAULTS.get(str(values.get("benchmark")), {})
        given = {key: value for key, value in values.items() if value is not None}
        rwalk = given.get("rwalk", {})
        if isinstance(rwalk, dict):
            given["rwalk"] = {**usual.get("rwalk", {}), **rwalk}
        return {**usual, **given}

    @field_validator("benchmark")
    @classmethod
    def _known_benchmark(cls, value: str) -> str:
        if value not in benchmarks():
            raise ValueError(f"unknown benchmark {value!r}: choose one of {', '.join(benchmarks())}")
        return value

    @field_validator("method")
    @classmethod
    def _known_method(cls, value: str) -> str:
        if value not in METHODS:
            raise ValueError(f"unknown method {value!r}: choose one of {', '.join(METHODS)}")
        return value

    @field_validator("rwalk")
    @classmethod
    def _valid_settings(cls, value: dict[str, Any]) -> dict[str, Any]:
        try:
            RWalkConfig.from_dict(value)
        except TypeError as error:
            raise ValueError(str(error)) from error
        return value

    @property
    def rwalk_config(self) -> RWalkConfig:
        """All settings of Riemannian Walk."""
        return RWalkConfig.from_dict(self.rwalk)


def load_spec(path: str | Path | None, **overrides: Any) -> RunSpec:
    """Read a spec from a YAML file, from options, or both.

    Args:
        path: The file; its keys are ``RunSpec``'s attributes. None: everything comes from ``overrides``.
        overrides: Values that replace the file's; None leaves them. ``rwalk`` settings are merged one by one.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Not YAML, or not a spec; one line that names the key and the value.
    """
    values: Any = {}
    if path is not None:
        if not Path(path).is_file():
            raise FileNotFoundError(f"no spec file at {path}{' (it is a folder)' if Path(path).is_dir() else ''}")
        try:
            values = _numbers(yaml.safe_load(Path(path).read_text(encoding="utf-8")))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
        if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
            raise ValueError(f"{path}: expected keys and values, such as 'benchmark: split-digits'")
    return build_spec(values, **overrides)


def build_spec(values: dict[str, Any], **overrides: Any) -> RunSpec:
    """A spec from plain values, with errors of one line.

    Raises:
        ValueError: A value is missing, unknown or out of range.
    """
    merged = {**values, **{key: value for key, value in overrides.items() if value not in (None, {})}}
    if isinstance(values.get("rwalk"), dict):
        merged["rwalk"] = {**values["rwalk"], **(overrides.get("rwalk") or {})}
    try:
        return RunSpec(**merged)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        if first["type"] == "missing":
            raise ValueError(
                f"no {where} given: name one, as an option or in a spec file; `rwalk list` shows them"
            ) from None
        if first["type"] == "extra_forbidden":
            raise ValueError(f"unknown key {where!r}: a spec has {', '.join(RunSpec.model_fields)}") from None
        if first["type"] == "value_error":  # our own: it names the value already
            raise ValueError(first["msg"].removeprefix("Value error, ")) from None
        raise ValueError(f"{where}={first['input']!r}: {first['msg']}") from None


def _numbers(value: Any) -> Any:
    """YAML 1.1 reads ``1e-3`` as text, because it has no dot; take it as the number that it is."""
    if isinstance(value, dict):
        return {key: _numbers(entry) for key, entry in value.items()}
    return float(value) if isinstance(value, str) and re.fullmatch(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+", value) else value
