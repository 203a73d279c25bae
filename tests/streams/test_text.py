"""Words as hashed token ids."""

import re
import zlib
from inspect import signature

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from rwalk.models.text import text_mlp
from rwalk.streams.tables import VOCABULARY, hash_tokens


def naive(text, length, vocabulary):
    words = [word.lower() for word in re.split(r"[^\w]+", text.lower()) if word][:length]
    ids = [zlib.crc32(word.encode("utf-8")) % (vocabulary - 1) + 1 for word in words]
    return ids + [0] * (length - len(ids))


@given(st.lists(st.text(max_size=30), min_size=1, max_size=4), st.integers(1, 6), st.integers(2, 50))
def test_each_word_has_the_id_of_its_hash_wherever_it_stands(texts, length, vocabulary):
    ids = hash_tokens(texts, length, vocabulary)
    assert ids.dtype is torch.int64
    assert ids.tolist() == [naive(text, length, vocabulary) for text in texts]
    assert 0 <= int(ids.min()) <= int(ids.max()) < vocabulary


def test_the_text_model_takes_the_ids_as_they_come():
    assert signature(text_mlp).parameters["vocabulary"].default == VOCABULARY
    assert signature(text_mlp).parameters["padding"].default == 0


def test_ids_are_the_same_on_every_machine():
    assert hash_tokens(["Wall Street's café"], length=5).tolist() == [[1600, 5760, 18038, 19718, 0]]


def test_case_and_punctuation_make_no_other_word():
    ids = hash_tokens(["Stocks fell", "STOCKS, fell!"], length=2)
    assert torch.equal(ids[0], ids[1])


def test_an_embedding_bag_takes_the_ids_and_leaves_the_filling_out():
    bag = nn.EmbeddingBag(100, 3, padding_idx=0, mode="mean")
    short, long = (bag(hash_tokens(["a small text"], length, 100)) for length in (3, 9))
    assert torch.allclose(short, long)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 0}, "length=0, vocabulary=20000: expected at least 1 word and 2 ids"),
        ({"vocabulary": 1}, "length=64, vocabulary=1: expected"),
    ],
)
def test_no_words_or_no_ids_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        hash_tokens(["text"], **options)


def test_what_is_no_text_is_named():
    with pytest.raises(ValueError, match="text 1 is None: expected a string"):
        hash_tokens(["text", None])
