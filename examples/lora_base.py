"""PEFT: a language model that writes English learns Python code by LoRA, and its English is held by BaseProtection.

A is Python's own documentation, B the source of its standard library: both are in every Python. The model is a small
Llama that knows characters, and is trained on A first.

Run it: python examples/lora_base.py
"""

import math
import pydoc_data.topics
import sysconfig
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import torch
from keeping import Figures, Problem, command
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from transformers import LlamaConfig, LlamaForCausalLM

from rwalk import RWalkConfig
from rwalk.integrations.peft import BaseProtection

LENGTH, BATCH, SAMPLES, CHARACTERS = 64, 16, 100, 128

torch.set_num_threads(1)  # the model is small


@cache
def text(name: str) -> Tensor:
    """A kind of text, as numbers of characters in rows of one length, in an order of its own."""
    if name == "A":
        whole = "".join(pydoc_data.topics.topics[key] for key in sorted(pydoc_data.topics.topics))
    else:
        files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
        whole = "".join(file.read_text(encoding="utf-8", errors="ignore") for file in files)[:1_000_000]
    numbers = torch.tensor(list(whole.encode("ascii", errors="ignore")))
    rows = numbers[: len(numbers) // LENGTH * LENGTH].view(-1, LENGTH)
    return rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]


def part(name: str, which: str) -> Tensor:
    """To learn from, held out, or tested."""
    rows = text(name)
    return {"learned": rows[300:], "held out": rows[:100], "tested": rows[100:300]}[which]


def language_model(seed: int) -> nn.Module:
    """A small Llama."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=CHARACTERS,
        hidden_size=64,
        intermediate_size=160,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
        bos_token_id=None,
        eos_token_id=None,
    )
    return LlamaForCausalLM(config)


def steps(model: nn.Module, optimizer: Optimizer, rows: Tensor, count: int) -> None:
    """Your loop. It knows nothing of RWalk."""
    model.train()
    for _ in range(count):
        tokens = rows[torch.randint(len(rows), (BATCH,))]
        optimizer.zero_grad()
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()


@torch.no_grad()
def loss_and_accuracy(model: nn.Module, rows: Tensor) -> tuple[float, float]:
    """Mean cross-entropy of a character in nats, and the share of characters that are foretold, in %."""
    model.train(mode=False)
    scores = torch.cat([model(input_ids=tokens).logits[:, :-1] for tokens in rows.split(100)]).flatten(0, 1)
    target = rows[:, 1:].flatten()
    return float(nn.functional.cross_entropy(scores, target)), 100 * float((scores.argmax(1) == target).float().mean())


def base_protection(importance: str) -> Any:
    """BaseProtection, in the harness's way."""

    def way(problem: Problem, model: nn.Module, optimizer: Optimizer, strength: float, seed: int) -> None:
        protection = BaseProtection(model, optimizer, strength, importance=importance)  # type: ignore[arg-type]
        protection.protect(problem.samples(seed), likelihood="categorical")

    return way


def alike(problem: Problem, model: nn.Module, optimizer: Optimizer, strength: float, seed: int) -> None:
    """The same penalty with every weight's importance 1."""
    protection = BaseProtection(model, optimizer, strength)
    protection.protect(problem.samples(seed)[:1], likelihood="categorical")
    state = protection.state_dict()
    for values in state["parameters"].values():
        values["row.0"], values["column.0"] = torch.ones_like(values["row.0"]), torch.ones_like(values["column.0"])
    protection.load_state_dict(state)


def problem(pretraining: int, count: int) -> Problem:
    """A Llama that writes English, with adapters.

    Args:
        pretraining: Steps on A.
        count: Steps on B.
    """

    @cache
    def pretrained() -> dict[str, Tensor]:
        model = language_model(0)
        steps(model, AdamW(model.parameters(), lr=3e-3, weight_decay=0.01), part("A", "learned"), pretraining)
        return model.state_dict()

    def start(seed: int) -> nn.Module:
        base = language_model(0)
        base.load_state_dict(pretrained())
        torch.manual_seed(seed)
        return get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=16, target_modules="all-linear"))

    def samples(seed: int) -> list[dict[str, Tensor]]:
        rows = part("A", "learned")
        chosen = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:SAMPLES]
        return [{"input_ids": tokens} for tokens in rows[chosen].split(50)]

    def learn(model: nn.Module, optimizer: Optimizer, _: int, jointly: bool, __: bool) -> None:
        rows = part("B", "learned")
        if jointly:
            rows = torch.cat([rows, part("A", "learned")[torch.arange(len(rows)) % len(part("A", "learned"))]])
        steps(model, optimizer, rows, count)

    def score(model: nn.Module, _: int, held_out: bool) -> Figures:
        which = "held out" if held_out else "tested"
        return math.exp(loss_and_accuracy(model, part("A", which))[0]), loss_and_accuracy(model, part("B", which))[1]

    def own_loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        loss: Tensor = model(**batch, labels=batch["input_ids"]).loss
        return loss

    def adamw(parameters: Iterable[nn.Parameter]) -> Optimizer:
        return AdamW(parameters, lr=3e-3, weight_decay=0.0)

    strengths = (0.003, 0.01, 0.014, 0.02, 0.028)
    names = ("every weight alike", "BaseProtection, factored", "BaseProtection, whole")
    return Problem(
        name="English, then Python code, by LoRA",
        start=start,
        samples=samples,
        old_loss=own_loss,
        head=lambda _: (),
        learn=learn,
        score=score,
        optimizer=adamw,
        strengths=dict.fromkeys(names, strengths) | {"EWC": (1.0, 10.0, 100.0)},
        options={"likelihood": "categorical"},
        config=RWalkConfig(),
        tells="A: perplexity per character, less is better; B: characters foretold, in %; EWC is on the adapters",
        ways=dict(zip(names, (alike, base_protection("factored"), base_protection("whole")), strict=True)),
        less_is_better=True,
        tuning_seeds=(100,),
    )


def problems(quick: bool) -> Iterator[Problem]:
    """One."""
    yield problem(20, 10) if quick else problem(600, 120)


METHODS = (
    "fine-tuning",
    "EWC",
    "every weight alike",
    "BaseProtection, factored",
    "BaseProtection, whole",
    "joint training",
)

if __name__ == "__main__":
    command(__doc__, problems, seeds=3, methods=METHODS)
