"""Hugging Face Trainer: one callback, given to the Trainer of each task. What is a text about, in two languages?

Run it: python examples/hf_text_classification.py
"""

import random
from collections.abc import Sequence
from typing import Any

import torch
from transformers import BertConfig, BertForSequenceClassification, PrinterCallback, Trainer, TrainerCallback
from two_languages import LENGTH, TOPICS, VOCABULARY, Language, arguments, encoded, two_languages
from two_tasks import Accuracies, compare

from rwalk import RWalkConfig
from rwalk.integrations.transformers import RWalkTrainerCallback

CONFIG = RWalkConfig(ewc_lambda=30.0, ewc_alpha=0.01, alpha_warmup=True)


def texts(language: Language, numbers: dict[str, int], count: int, seed: int) -> list[dict[str, Any]]:
    """Texts with the topic that each is about."""
    chance = random.Random(seed)
    topics = chance.choices(range(TOPICS), k=count)
    rows = [encoded(language.about(topic, chance), numbers) for topic in topics]
    return [{"input_ids": row, "labels": topic} for row, topic in zip(rows, topics, strict=True)]


def classifier(seed: int) -> BertForSequenceClassification:
    """A tiny BERT with random weights."""
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=96,
        max_position_embeddings=LENGTH,
        hidden_dropout_prob=0.0,
    )
    config.num_labels = TOPICS
    return BertForSequenceClassification(config)


def train(model: BertForSequenceClassification, data: Any, callbacks: Sequence[TrainerCallback]) -> None:
    """One task is one training."""
    options = arguments(num_train_epochs=5, learning_rate=1e-3)
    trainer = Trainer(model, options, train_dataset=data, callbacks=[*callbacks])
    trainer.remove_callback(PrinterCallback)
    trainer.train()


@torch.no_grad()
def accuracy(model: BertForSequenceClassification, data: list[dict[str, Any]]) -> float:
    """Share of the topics that are named correctly, in %."""
    topics = torch.tensor([sample["labels"] for sample in data])
    model.train(mode=False)
    scores = model(torch.stack([sample["input_ids"] for sample in data])).logits
    return 100 * float((scores.argmax(dim=1) == topics).float().mean())


def run(seed: int, protected: bool) -> Accuracies:
    """Learn A, then B; accuracy on A after A, on A after B and on B after B."""
    languages, numbers = two_languages(seed)
    train_a, train_b = (texts(language, numbers, 2000, seed) for language in languages)
    test_a, test_b = (texts(language, numbers, 500, seed + 1000) for language in languages)
    model = classifier(seed)
    walk = [RWalkTrainerCallback(CONFIG)] if protected else []  # the same object for both trainings

    train(model, train_a, walk)
    after_a = accuracy(model, test_a)

    train(model, train_b, walk)
    return after_a, accuracy(model, test_a), accuracy(model, test_b)


if __name__ == "__main__":
    compare(run)
