"""PEFT: a frozen language model with LoRA, and RWalk in Trainer. Only the adapters cost anything.

Run it: python examples/hf_causal_lm_lora.py
"""

import random
from collections.abc import Sequence
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PrinterCallback, Trainer, TrainerCallback
from two_languages import LENGTH, VOCABULARY, Language, arguments, encoded, two_languages
from two_tasks import Accuracies, compare

from rwalk import RWalkConfig
from rwalk.integrations.transformers import RWalkTrainerCallback

CONFIG = RWalkConfig(ewc_lambda=0.07, ewc_alpha=0.01, alpha_warmup=True)


def texts(language: Language, numbers: dict[str, int], count: int, seed: int) -> list[dict[str, Any]]:
    """Texts to be continued."""
    chance = random.Random(seed)
    rows = [encoded(language.running(chance), numbers) for _ in range(count)]
    return [{"input_ids": row, "labels": row} for row in rows]


def language_model(seed: int) -> nn.Module:
    """A tiny Llama with random weights, frozen but for its adapters."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=1,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
        initializer_range=0.2,  # untrained output layers have to tell words apart
        tie_word_embeddings=True,
    )
    lora = LoraConfig(task_type="CAUSAL_LM", r=16, lora_alpha=32, target_modules="all-linear")
    return get_peft_model(LlamaForCausalLM(config), lora)


def train(model: nn.Module, data: Any, callbacks: Sequence[TrainerCallback]) -> None:
    """One task is one training."""
    options = arguments(num_train_epochs=6, learning_rate=5e-3)
    trainer = Trainer(model, options, train_dataset=data, callbacks=[*callbacks])
    trainer.remove_callback(PrinterCallback)
    trainer.train()


@torch.no_grad()
def accuracy(model: nn.Module, data: list[dict[str, Any]]) -> float:
    """Share of the words that are foretold, in %; one in ten cannot be."""
    rows = torch.stack([sample["input_ids"] for sample in data])
    model.train(mode=False)
    foretold = model(input_ids=rows).logits.argmax(dim=2)
    return 100 * float((foretold[:, 1:-1] == rows[:, 2:]).float().mean())


def run(seed: int, protected: bool) -> Accuracies:
    """Learn A, then B; accuracy on A after A, on A after B and on B after B."""
    languages, numbers = two_languages(seed)
    train_a, train_b = (texts(language, numbers, 1000, seed) for language in languages)
    test_a, test_b = (texts(language, numbers, 200, seed + 1000) for language in languages)
    model = language_model(seed)
    walk = [RWalkTrainerCallback(CONFIG)] if protected else []  # the same object for both trainings

    train(model, train_a, walk)
    after_a = accuracy(model, test_a)

    train(model, train_b, walk)
    return after_a, accuracy(model, test_a), accuracy(model, test_b)


if __name__ == "__main__":
    compare(run)
