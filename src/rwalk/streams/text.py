"""Text as numbers, without a vocabulary to learn or to download."""

from __future__ import annotations

import re
from collections.abc import Iterable
from zlib import crc32

import torch
from torch import Tensor

__all__ = ["LENGTH", "VOCABULARY", "hash_tokens"]

LENGTH = 64  # words kept of each text
VOCABULARY = 20_000  # different token ids; as many as `rwalk.models.text_mlp` takes if nothing is said

_WORD = re.compile(r"\w+")


def hash_tokens(texts: Iterable[str], length: int = LENGTH, vocabulary: int = VOCABULARY) -> Tensor:
    """Words by their hash, the same on every machine.

    A word is a run of letters, digits and underscores, in lower case. Its id is 1 + CRC-32(UTF-8) mod (vocabulary − 1),
    so that different words may share one; 0 fills up short texts (``padding_idx=0`` of an embedding).

    Args:
        texts: N texts.
        length: Words kept of each text, L; the rest is cut off.
        vocabulary: Number of different ids, V.

    Returns:
        Token ids from 0 to V − 1, shape (N, L), int64.

    Raises:
        ValueError: ``length`` below 1, ``vocabulary`` below 2, or an entry that is no text.

    Example:
        >>> ids = hash_tokens(["To be, or not to be.", "Be!"], length=7, vocabulary=1000)
        >>> ids.shape, bool(ids[0, 1] == ids[1, 0]), ids[1, 1:].tolist()
        (torch.Size([2, 7]), True, [0, 0, 0, 0, 0, 0])
    """
    if length < 1 or vocabulary < 2:
        raise ValueError(f"length={length!r}, vocabulary={vocabulary!r}: expected at least 1 word and 2 ids")
    known: dict[str, int] = {}
    rows = []
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f"text {index} is {text!r}: expected a string")
        words = _WORD.findall(text.lower())[:length]
        for word in words:
            if word not in known:
                known[word] = 1 + crc32(word.encode()) % (vocabulary - 1)
        rows.append([known[word] for word in words] + [0] * (length - len(words)))
    return torch.tensor(rows, dtype=torch.int64)
