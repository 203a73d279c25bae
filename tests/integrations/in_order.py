"""A Trainer that takes its samples in order, also in versions of transformers that have no option for that."""

from dataclasses import fields
from typing import Any

from torch.utils.data import Sampler, SequentialSampler
from transformers import Trainer, TrainingArguments

__all__ = ["HAS_OPTION", "IN_ORDER", "OrderedTrainer"]

HAS_OPTION = "train_sampling_strategy" in {field.name for field in fields(TrainingArguments)}
#: For the arguments.
IN_ORDER: dict[str, Any] = {"train_sampling_strategy": "sequential"} if HAS_OPTION else {}


class _Ordered(Trainer):
    def _get_train_sampler(self, *dataset: Any) -> Sampler[int]:
        return SequentialSampler(self.train_dataset)


OrderedTrainer = Trainer if HAS_OPTION else _Ordered
