"""What the text examples share: two invented languages, a generator of texts in them, and a quiet Trainer.

Task A is in the first language, task B in the second. Texts about a topic have false friends in them: words of both
languages that mean different things. Running texts have none.
"""

import random
import sys
import tempfile
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import TrainingArguments

torch.set_num_threads(1)  # the networks are small

TOPICS, OWN, FRIENDS, OTHERS = 4, 12, 8, 16  # words of a topic: a language's own and false friends; words of no topic
WORDS = TOPICS * (FRIENDS + 2 * OWN) + 2 * OTHERS
VOCABULARY = 1 + WORDS  # 0 begins a text
LENGTH = 13


@dataclass
class Language:
    """Words by topic, words of no topic, and which word usually comes after another."""

    topics: list[list[str]]
    others: list[str]
    successors: dict[str, str]

    def about(self, topic: int, chance: random.Random) -> str:
        """A text with four words of its topic in it."""
        words = chance.choices(self.topics[topic], k=4) + chance.choices(self.others, k=LENGTH - 5)
        return " ".join(chance.sample(words, len(words)))

    def running(self, chance: random.Random) -> str:
        """A text in which nine words of ten are the usual successors."""
        words = [chance.choice(self.others)]
        while len(words) < LENGTH - 1:
            usual = chance.random() < 0.9
            words.append(self.successors[words[-1]] if usual else chance.choice(list(self.successors)))
        return " ".join(words)


def two_languages(seed: int) -> tuple[list[Language], dict[str, int]]:
    """Both, and the number of each word."""
    chance = random.Random(seed)
    syllables = [consonant + vowel for consonant in "bdfgklmnprst" for vowel in "aeiou"]
    spelled = chance.sample([a + b for a in syllables for b in syllables], WORDS)
    unused = iter(spelled)

    def words(count: int) -> list[str]:
        return [next(unused) for _ in range(count)]

    friends = [words(FRIENDS) for _ in range(TOPICS)]
    languages = []
    for shift in range(2):
        own, others = [words(OWN) for _ in range(TOPICS)], words(OTHERS)
        topics = [friends[(topic + shift) % TOPICS] + own[topic] for topic in range(TOPICS)]
        known = [*others, *(word for words_of_topic in own for word in words_of_topic)]
        successors = dict(zip(known, chance.sample(known, len(known)), strict=True))
        languages.append(Language(topics, others, successors))
    return languages, {word: number for number, word in enumerate(spelled, start=1)}


def encoded(text: str, numbers: dict[str, int]) -> Tensor:
    """The numbers of its words after that which begins a text, shape (LENGTH,)."""
    return torch.tensor([0, *(numbers[word] for word in text.split())])


def arguments(**options: Any) -> TrainingArguments:
    """Of a Trainer on the CPU that saves and logs nothing; its folder stays empty."""
    quiet: dict[str, Any] = {"save_strategy": "no", "logging_strategy": "no", "report_to": "none", "disable_tqdm": True}
    return TrainingArguments(tempfile.gettempdir(), use_cpu=True, per_device_train_batch_size=32, **quiet, **options)


if __name__ == "__main__":
    sys.stdout.write(f"{__doc__}\nNothing runs here; begin with: python examples/hf_text_classification.py\n")
