"""Tiny transformers with random weights, and Trainers that train them without a word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from integrations.in_order import HAS_OPTION, IN_ORDER, OrderedTrainer

WORDS, LENGTH = 24, 6


def classifier(seed: int = 0) -> BertForSequenceClassification:
    """One layer, two classes, no dropout."""
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=WORDS,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=LENGTH,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        num_labels=2,
    )
    return BertForSequenceClassification(config)


def language_model(seed: int = 0, dropout: float = 0.1) -> LlamaForCausalLM:
    """One layer; the output layer is the embedding (tied)."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=WORDS,
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=LENGTH,
        attention_dropout=dropout,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config)


def labelled(task: int, samples: int = 32) -> list[dict[str, Tensor]]:
    """Which of two words of the task's own comes more often."""
    random = torch.Generator().manual_seed(task)
    ids = torch.randint(12 * task, 12 * task + 12, (samples, LENGTH), generator=random)
    labels = ((ids % 12 < 6).sum(dim=1) > LENGTH // 2).long()
    return [{"input_ids": x, "labels": y} for x, y in zip(ids, labels, strict=True)]


def sentences(task: int, samples: int = 32) -> list[dict[str, Tensor]]:
    """Counting, in the task's own steps."""
    random = torch.Generator().manual_seed(task)
    first = torch.randint(WORDS, (samples, 1), generator=random)
    ids = (first + (2 * task + 1) * torch.arange(LENGTH)) % WORDS
    return [{"input_ids": x, "labels": x} for x in ids]


def arguments(folder: Path | str, **options: Any) -> TrainingArguments:
    """Eight steps an epoch of 32 samples on the CPU; nothing saved, logged or shown unless it is asked for."""
    for state in (AcceleratorState, GradientState, PartialState):  # singletons that remember the last precision
        state._reset_state()
    quiet: dict[str, Any] = {
        "use_cpu": True,
        "num_train_epochs": 1,
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-2,
        **IN_ORDER,
        "save_strategy": "no",
        "logging_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }
    return TrainingArguments(str(folder), **{**quiet, **options})


def trainer(
    model: nn.Module, folder: Path | str, data: list[Any], *callbacks: TrainerCallback, **options: Any
) -> Trainer:
    """A Trainer as users build it; ``eval_dataset`` and ``optimizers`` go to it, all other options to its arguments.

    ``shuffles``: Whether it draws its samples at random.
    """
    own = {name: options.pop(name) for name in ("eval_dataset", "optimizers") if name in options}
    shuffles = options.pop("shuffles", False)
    if shuffles and HAS_OPTION:
        options["train_sampling_strategy"] = "random"
    kind = Trainer if shuffles else OrderedTrainer
    return kind(model, arguments(folder, **options), train_dataset=data, callbacks=list(callbacks), **own)


class StopAfter(TrainerCallback):
    """Something goes wrong as a step ends, after it was saved."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            raise KeyboardInterrupt
