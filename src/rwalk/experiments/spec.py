"""What a run is, as one validated object that a file can hold."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from rwalk.core import RWalkConfig
from rwalk.errors import closest
from rwalk.experiments.methods import METHODS
from rwalk.models.registry import find_builder
from rwalk.replay.samplers import as_sampler
from rwalk.streams import check_benchmark

__all__ = ["DEFAULTS", "RunSpec"]

#: Counts that a machine can be asked for: beyond, a number is a slip of the pen.
Positive = Annotated[int, Field(ge=1, le=2**31 - 1)]
Width = Annotated[int, Field(ge=1, le=2**20)]
Name = Annotated[str, Field(max_length=1000)]

#: Training settings of a benchmark where a spec names none. ``rwalk`` has those of methods made of the core, each
#: method's own, since a λ that serves one means nothing to another; they were chosen on data held out of the training
#: sets, but for those of ``UNTUNED``.
DEFAULTS: dict[str, dict[str, Any]] = {
    "split-digits": {
        "epochs": 30,
        "batch_size": 32,
        "replay_batch_size": 128,
        "lr": 1e-3,
        "rwalk": {"rwalk": {"ewc_lambda": 3.0}, "ewc++": {"ewc_lambda": 1000.0}, "pi": {"ewc_lambda": 10.0}},
    },
    "split-mnist": {
        "epochs": 1,
        "batch_size": 64,
        "replay_batch_size": "balanced",
        "sampler": "mean-of-features",
        "heads": "masked",
        "lr": 2e-4,
        "rwalk": {"rwalk": {"ewc_lambda": 10.0}},
    },
    "permuted-mnist": {"epochs": 1, "batch_size": 64, "lr": 1e-3, "rwalk": {"rwalk": {"ewc_lambda": 1.0}}},
}
UNTUNED = {"permuted-mnist"}

#: Settings that are numbers, or lists of them.
NUMBERS = (
    "n_experiences", "class_order", "sizes", "only_first", "hidden", "exemplars", "exemplars_total",
    "replay_batch_size", "epochs", "batch_size", "lr", "validation", "seed", "threads",
)  # fmt: skip

LISTS = {"class_order", "sizes", "hidden"}

#: Settings that came later, with what was done before them: left out of ``canonical`` at that value, so that what was
#: stored earlier, results and checkpoints, is still known for the same run.
LATER: dict[str, Any] = {
    "test_ahead": True,
    "precision": "float32",
    "reset_optimizer": False,
    "average_weights": False,
    "classifier": "output",
}


class RunSpec(BaseModel):
    """One training run over one stream.

    Attributes:
        benchmark: Name in the catalog, or ``SCENARIO:SOURCE`` (see ``rwalk.streams.benchmark``).
        method: Name in the registry of methods.
        rwalk: Settings of ``RWalkConfig`` by name, which change the method's preset; refused for methods that are not
            made of the core.
        options: Settings of other methods, by name.
        n_experiences: Into how many experiences the data is split; the benchmark's usual number if None.
        class_order: Every class once, in the order in which they arrive.
        sizes: How many classes each experience brings.
        only_first: Learn and test the stream's first so many experiences alone; all if None.
        shuffle_classes: Draw the order of classes (or the permutations) from the seed.
        task_labels: Tell tasks apart by a label (task-incremental), also when testing.
        model: Name of a network, or the import path ``package.module:function`` of one.
        model_options: Its keyword arguments.
        hidden: Widths of the hidden layers of ``model="mlp"``.
        heads: ``"single"`` output layer; ``"masked"``, single and of the classes seen only; ``"current"``, single and
            trained among an experience's own classes only, without exemplars or ``lwf``; ``"multi"``,
            one for each task label; ``"growing"`` with the classes.
        exemplars: Exemplars kept of each class and replayed; 0 for none.
        exemplars_total: Exemplars kept altogether, instead.
        sampler: How they are chosen: a name of ``rwalk.replay.SAMPLERS``.
        sampler_layer: Layer whose output the sampler takes as features, if it looks at features.
        replay_batch_size: Remembered samples in a batch, beside ``batch_size`` new ones; as many as new ones if None,
            ``"balanced"`` over classes.
        classifier: What classes are told by in tests: the ``"output"`` layer, or the ``"nearest-mean"`` of the features
            of exemplars (of ``sampler_layer``, if that is given), or a linear ``"discriminant"`` of them; see
            ``NearestMeanPlugin`` and ``DiscriminantPlugin``.
        epochs: Passes over each experience.
        batch_size: New samples in a batch.
        lr: Learning rate.
        optimizer: ``adam``, ``adamw``, ``sgd`` or ``momentum`` (SGD with momentum 0.9).
        reset_optimizer: Begin each experience with an optimizer that remembers nothing, as the authors do on CIFAR-100.
        average_weights: End each experience at the average of the weights on the way (``WeightAveragePlugin``); methods
            made of the core hold it there too (``anchor_at="average"``, if ``rwalk`` says nothing else).
        validation: Share of the training data that is held out and evaluated on *instead of* the test data; for
            choosing settings. 0 trains on all of it and evaluates on the test data.
        test_ahead: After each task, test on those to come too, and the untrained model on all. Forward transfer needs
            it, and forgetting of a task that was better before it was learned. False halves the tests.
        seed: Seeds weights, batches, exemplars, and with ``shuffle_classes`` the stream.
        device: Torch device.
        precision: ``"bfloat16"`` runs the network under autocast, where weights, loss and importances stay float32, and
            lays images out channels last: on processors with AVX512-BF16 a step takes half to two thirds of the time.
        threads: Threads of the CPU; one is fastest for small networks, and gives the same result on any machine.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    benchmark: Name
    method: Name
    rwalk: dict[str, Any] = Field(default_factory=dict)
    options: dict[str, Any] = Field(default_factory=dict)
    n_experiences: Positive | None = None
    class_order: Annotated[tuple[Annotated[int, Field(ge=-(2**31), lt=2**31)], ...], Field(max_length=10**6)] | None = (
        None
    )
    sizes: tuple[Positive, ...] | None = None
    only_first: Positive | None = None
    shuffle_classes: bool = False
    task_labels: bool = False
    model: str = "mlp"
    model_options: dict[str, Any] = Field(default_factory=dict)
    hidden: Annotated[tuple[Width, ...], Field(max_length=100)] = (256, 256)
    heads: Literal["single", "masked", "current", "multi", "growing"] = "single"
    exemplars: int = Field(default=0, ge=0, le=2**31 - 1)
    exemplars_total: Positive | None = None
    sampler: str = "uniform"
    sampler_layer: str | None = None
    replay_batch_size: Positive | Literal["balanced"] | None = None
    classifier: Literal["output", "nearest-mean", "discriminant"] = "output"
    epochs: Positive = 1
    batch_size: Positive = 64
    lr: float = Field(default=1e-3, gt=0.0, le=1e6, allow_inf_nan=False)
    optimizer: Literal["adam", "adamw", "sgd", "momentum"] = "adam"
    reset_optimizer: bool = False
    average_weights: bool = False
    validation: float = Field(default=0.0, ge=0.0, lt=1.0)
    test_ahead: bool = True
    seed: int = Field(default=0, ge=0, lt=2**63)
    device: str = "cpu"
    precision: Literal["float32", "bfloat16"] = "float32"
    threads: int = Field(default=1, ge=1, le=1024)

    @model_validator(mode="before")
    @classmethod
    def _fill_in_the_benchmarks_defaults(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        usual = dict(DEFAULTS.get(str(values.get("benchmark")), {}))
        given = {key: value for key, value in values.items() if value is not None}
        tuned = usual.pop("rwalk", {}).get(str(values.get("method")), {})
        rwalk = given.get("rwalk", {})
        if isinstance(rwalk, dict):
            given["rwalk"] = {**tuned, **rwalk}
        return {**usual, **given}

    @field_validator(*NUMBERS, mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """YAML reads ``yes`` and ``on`` as true, which Python counts as 1."""
        if info.field_name in LISTS and isinstance(value, int | float | str):
            raise ValueError(
                f"{info.field_name}={value!r}: expected a list, such as [{value}]; in a grid each value is a list"
            )
        if isinstance(value, bool) or (isinstance(value, list | tuple) and any(isinstance(v, bool) for v in value)):
            raise ValueError(f"{info.field_name}={value}: expected numbers, not true or false")
        return value

    @field_validator("benchmark")
    @classmethod
    def _known_benchmark(cls, value: str) -> str:
        check_benchmark(value)
        return value

    @field_validator("method")
    @classmethod
    def _known_method(cls, value: str) -> str:
        if value not in METHODS:
            raise ValueError(f"unknown method {value!r}{closest(value, METHODS)}: choose one of {', '.join(METHODS)}")
        return value

    @field_validator("model")
    @classmethod
    def _known_model(cls, value: str) -> str:
        if ":" not in value:  # an import path is followed where the network is built
            find_builder(value)
        return value

    @field_validator("sampler")
    @classmethod
    def _known_sampler(cls, value: str) -> str:
        return as_sampler(value).name

    @model_validator(mode="after")
    def _settings_of_the_method(self) -> RunSpec:
        method = METHODS[self.method]
        if self.rwalk and not method.reads_rwalk:
            key, value = next(iter(self.rwalk.items()))
            raise ValueError(
                f"rwalk.{key}={value!r}: method {self.method!r} does not read settings of RWalk"
                + (f"; its strength is {method.strength}" if method.strength else "")
            )
        try:
            method.plugins(self.rwalk_config, self.options)
        except TypeError as error:
            known = any(str(key) in str(error) for key in (*self.options, *self.rwalk))
            raise ValueError(str(error) if known else f"options={self.options}: {error}") from error
        return self

    @model_validator(mode="after")
    def _heads_have_tasks(self) -> RunSpec:
        if self.heads == "multi" and not self.task_labels:
            raise ValueError("heads='multi': a head for each task needs task_labels=true; 'masked' needs none")
        if self.heads == "current" and (self.exemplars or self.exemplars_total):
            raise ValueError("heads='current' learns nothing from exemplars of other classes: take 'masked' with them")
        if self.heads == "current" and self.method == "lwf":
            raise ValueError(
                "heads='current' has no scores of past classes, which 'lwf' holds: take 'masked' or 'growing'"
            )
        return self

    @model_validator(mode="after")
    def _one_budget(self) -> RunSpec:
        if self.exemplars and self.exemplars_total:
            raise ValueError(
                f"exemplars={self.exemplars}, exemplars_total={self.exemplars_total}: expected one of the two budgets"
            )
        if self.exemplars and not as_sampler(self.sampler).by_class:
            raise ValueError(
                f"exemplars={self.exemplars}: sampler {self.sampler!r} chooses among all classes together; give "
                "exemplars_total, or take 'class-balanced-reservoir'"
            )
        if self.sampler_layer is not None and "layer" not in type(as_sampler(self.sampler)).__annotations__:
            raise ValueError(f"sampler_layer={self.sampler_layer!r}: sampler {self.sampler!r} looks at no features")
        if self.classifier != "output" and not (self.exemplars or self.exemplars_total):
            raise ValueError(f"classifier={self.classifier!r} needs exemplars: give exemplars or exemplars_total")
        return self

    @property
    def rwalk_config(self) -> RWalkConfig:
        """All settings of Riemannian Walk: the method's preset, changed by ``rwalk``."""
        changes = {"anchor_at": "average", **self.rwalk} if self.average_weights else self.rwalk
        return RWalkConfig.preset(METHODS[self.method].preset or "paper", **changes)

    @property
    def reads_rwalk(self) -> bool:
        """Whether the method is made of the core, and reads ``rwalk``."""
        return METHODS[self.method].reads_rwalk

    def is_tuned(self) -> bool:
        """Whether the method's strength was chosen for this benchmark, or given; true where there is none to choose."""
        if not METHODS[self.method].has_strength:
            return True
        if not self.reads_rwalk:
            return bool(self.options)
        usual = DEFAULTS.get(self.benchmark, {}).get("rwalk", {}).get(self.method, {})
        given = self.rwalk.get("ewc_lambda")
        return given is not None and not (self.benchmark in UNTUNED and given == usual.get("ewc_lambda"))

    def canonical(self) -> dict[str, Any]:
        """All settings as plain values, defaults and presets written out: equal for runs that do the same.

        Settings of ``LATER`` are left out where they change nothing.
        """
        values = self.model_dump(mode="json")
        rwalk = self.rwalk_config.to_dict() if self.reads_rwalk else {}
        usual = {key for key, value in LATER.items() if values[key] == value}
        return {key: value for key, value in values.items() if key not in usual} | {"rwalk": rwalk}
