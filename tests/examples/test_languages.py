"""The invented languages of the text examples: what their texts tell, and that a seed tells all of it."""

import importlib.util
import random
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="module")
def examples():
    path = Path(__file__).parents[2] / "examples" / "two_languages.py"
    spec = importlib.util.spec_from_file_location("two_languages", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look for it there
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_false_friends_mean_other_topics(examples):
    (first, second), numbers = examples.two_languages(0)
    shared = {word for topic in first.topics for word in topic} & {word for topic in second.topics for word in topic}
    assert len(shared) == examples.TOPICS * examples.FRIENDS
    assert all(not set(a) & set(b) for a, b in zip(first.topics, second.topics, strict=True))
    assert not set(first.others) & set(second.others)
    assert sorted(numbers.values()) == list(range(1, examples.VOCABULARY))


@pytest.mark.parametrize("topic", range(4))
def test_a_text_about_a_topic_has_four_of_its_words_and_no_other_topics(examples, topic):
    (language, _), _ = examples.two_languages(1)
    for seed in range(20):
        words = language.about(topic, random.Random(seed)).split()
        told = [[word in known for word in words] for known in (language.topics[topic], language.others)]
        assert [sum(each) for each in told] == [4, examples.LENGTH - 5]


def test_nine_words_of_ten_are_usual_successors(examples):
    for language in examples.two_languages(2)[0]:
        chance = random.Random(0)
        texts = [language.running(chance).split() for _ in range(400)]
        pairs = [pair for words in texts for pair in pairwise(words)]
        usual = sum(language.successors[word] == after for word, after in pairs) / len(pairs)
        assert usual == pytest.approx(0.9, abs=0.02)
        assert sorted(language.successors) == sorted(language.successors.values())


def test_a_text_is_its_words_numbers_after_the_one_that_begins_texts(examples):
    (language, _), numbers = examples.two_languages(3)
    text = language.about(0, random.Random(0))
    row = examples.encoded(text, numbers)
    spelled = {number: word for word, number in numbers.items()}
    assert row.shape == (examples.LENGTH,)
    assert row[0] == 0
    assert " ".join(spelled[number] for number in row[1:].tolist()) == text


def test_a_seed_gives_the_same_languages(examples):
    assert examples.two_languages(4) == examples.two_languages(4)
    assert examples.two_languages(4)[1] != examples.two_languages(5)[1]
    assert torch.get_num_threads() == 1
