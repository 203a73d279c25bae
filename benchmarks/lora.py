"""What RWalk costs where LoRA trains adapters in a large frozen network: memory for each number trained, and time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.cases import Batch
from benchmarks.command import Result, progress, run
from benchmarks.models import size
from benchmarks.subjects import attached, check_finite, past_first_task, plain_loop
from benchmarks.tensors import MemoryTrace, own_bytes
from benchmarks.timing import interleave, visit
from benchmarks.traffic import FLOAT
from rwalk import RWalk, RWalkConfig
from rwalk.integrations.peft import BaseProtection

__all__ = ["ADAPTERS", "NextToken", "adapted"]

WINDOW = 10
VOCABULARY, TOKENS, BATCH_SIZE = 4096, 64, 4
#: Layers with adapters: those of LoRA's paper, and all.
ADAPTERS: dict[str, Any] = {"attention": ["q_proj", "v_proj"], "all_linear": "all-linear"}
FORMS = ("factored", "whole")


class NextToken(nn.Module):
    """A causal language model that gives scores as a classifier of each position does."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens, shape (B, T), to scores of the next ones, shape (B, V, T)."""
        return self.model(input_ids=tokens, use_cache=False).logits.movedim(-1, 1)


def adapted(target_modules: str | Sequence[str], depth: int = 8) -> NextToken:
    """A Llama with random weights, frozen but for adapters of rank 8; 27 million parameters with the defaults."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=512,
        intermediate_size=1376,
        num_hidden_layers=depth,
        num_attention_heads=8,
        max_position_embeddings=TOKENS,
        tie_word_embeddings=True,
    )
    lora = LoraConfig(task_type="CAUSAL_LM", r=8, target_modules=target_modules)
    return NextToken(get_peft_model(LlamaForCausalLM(config), lora))


def measure(quick: bool) -> Result:
    """Count what RWalk keeps for each trainable parameter of a language model with LoRA; time its part of a step."""
    settings = {"model": "Llama, 8 layers of 512", "optimizer": "AdamW", "rank": 8, "delta_t": WINDOW}
    result = Result({**settings, "batch": BATCH_SIZE, "tokens": TOKENS})
    for name, target_modules in ADAPTERS.items():
        progress(name)
        row: dict[str, Any] = {"adapters": name} | _memory(target_modules) | _time(target_modules, quick)
        result.rows.append(row)
        for figure in ("parameters", "floats_at_rest", "floats_at_peak", "added_share"):
            result.ratios[f"{name}.{figure}"] = row[figure]
        row |= _base(target_modules, quick)
        for form in FORMS:
            for figure in ("floats", "added_share"):
                result.ratios[f"{name}.base_{form}_{figure}"] = row[f"base_{form}_{figure}"]
    result.note("base: BaseProtection; floats: what it keeps / (4 x adapted weights of the base)")
    result.note("floats: bytes / (4 x trainable parameters) that RWalk keeps, after the first task")
    result.note("at rest: alive between steps; at the peak: the most in a window of steps, less the most without it")
    result.note("added = step with it - step without, paired within a round; median over rounds, quartiles beside it")
    return result


def _base(target_modules: str | Sequence[str], quick: bool) -> dict[str, Any]:
    """BaseProtection: what it keeps for each adapted weight of the base, and its part of a step."""
    model, optimizer, batches = _subject(target_modules)
    plain = plain_loop(model, optimizer, batches)
    plain(2)
    bare, row = visit(plain, 1, lead_in=0), dict[str, Any]()
    variants, known = {"bare": bare}, [tensor for batch in batches for tensor in batch]
    for form in FORMS:
        already = own_bytes(model, optimizer, known)
        protection = BaseProtection(model, optimizer, 1e-4, importance=form, attach=False)
        protection.protect([batches[0][0][:1]], likelihood="categorical", class_dim=1)
        variants[form] = attached(protection, bare, 1)
        variants[form]()  # what a first step prepares
        adapted = sum(value.numel() for value in protection.importances().values())
        row["adapted"] = adapted
        row[f"base_{form}_floats"] = (own_bytes(model, optimizer, known) - already) / adapted / FLOAT
    rounds = interleave(variants, budget=10.0 if quick else 60.0, at_least=1 if quick else 7, turns=2)
    check_finite(model)
    for form in FORMS:
        share = rounds.summary(lambda seconds, form=form: seconds[form] / seconds["bare"] - 1)
        row |= {f"base_{form}_added_share": share.median, f"base_{form}_q1": share.q1, f"base_{form}_q3": share.q3}
    return row


def _subject(target_modules: str | Sequence[str]) -> tuple[NextToken, Optimizer, list[Batch]]:
    model = adapted(target_modules)
    optimizer = AdamW(_trainable(model), lr=1e-5)
    shape = (BATCH_SIZE, TOKENS)
    return model, optimizer, [tuple(torch.randint(0, VOCABULARY, (2, *shape))) for _ in range(4)]


def _trainable(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def _memory(target_modules: str | Sequence[str]) -> dict[str, Any]:
    with MemoryTrace() as trace:
        model, optimizer, batches = _subject(target_modules)
        known = [tensor for batch in batches for tensor in batch]
        run_steps = plain_loop(model, optimizer, batches)
        run_steps(2)
        already = own_bytes(model, optimizer, known)
        with trace.mark("bare"):
            run_steps(WINDOW + 1)
        rwalk = RWalk(model, optimizer, RWalkConfig(delta_t=WINDOW))
        run_steps(WINDOW + 1)
        rwalk.consolidate()
        run_steps(WINDOW + 1)
        kept = own_bytes(model, optimizer, known) - already
        with trace.mark("later"):
            run_steps(WINDOW + 1)
    trained = sum(parameter.numel() for parameter in _trainable(model))
    peak = trace.peaks["later"] - trace.peaks["bare"]
    floats = {"floats_at_rest": kept / trained / FLOAT, "floats_at_peak": peak / trained / FLOAT}
    return {"parameters": size(model), "trainable": trained, **floats}


def _time(target_modules: str | Sequence[str], quick: bool) -> dict[str, Any]:
    model, optimizer, batches = _subject(target_modules)
    plain = plain_loop(model, optimizer, batches)
    plain(2)
    rwalk, _ = past_first_task(model, optimizer, plain, delta_t=WINDOW)
    bare = visit(plain, 1, lead_in=0)
    variants = {"bare": bare, "rwalk": attached(rwalk, bare, 1)}
    rounds = interleave(variants, budget=10.0 if quick else 60.0, at_least=1 if quick else 7, turns=WINDOW)
    check_finite(model)
    step = rounds.summary(lambda seconds: seconds["bare"])
    added = rounds.summary(lambda seconds: seconds["rwalk"] - seconds["bare"])
    share = rounds.summary(lambda seconds: seconds["rwalk"] / seconds["bare"] - 1)
    times = {"step": step.median, "added": added.median, "q1": added.q1, "q3": added.q3}
    milliseconds = {f"{name}_ms": 1e3 * value for name, value in times.items()}
    return {"rounds": len(rounds), **milliseconds, "added_share": share.median}


if __name__ == "__main__":
    run("lora", measure)
