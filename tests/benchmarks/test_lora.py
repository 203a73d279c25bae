"""The language model that RWalk is measured on with LoRA: large, and frozen but for its adapters."""

import pytest
import torch
from benchmarks.lora import ADAPTERS, TOKENS, VOCABULARY, adapted
from benchmarks.models import size

from rwalk import RWalk

# peft 0.21 asks models for what transformers 5.23 calls by another name
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@pytest.mark.parametrize("adapters", ADAPTERS)
def test_it_has_more_than_20_million_parameters_and_trains_adapters_alone(adapters):
    with torch.device("meta"):
        model = adapted(ADAPTERS[adapters])
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert size(model) >= 20_000_000
    assert 0 < sum(p.numel() for p in trained.values()) < 0.03 * size(model)
    assert all("lora_" in name for name in trained)


def test_a_step_scores_every_position_and_is_followed():
    model = adapted(ADAPTERS["attention"], depth=1)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    rwalk = RWalk(model, optimizer)
    tokens, targets = torch.randint(0, VOCABULARY, (2, 2, TOKENS))
    scores = model(tokens)
    assert scores.shape == (2, VOCABULARY, TOKENS)
    torch.nn.functional.cross_entropy(scores, targets).backward()
    optimizer.step()
    assert rwalk.steps == 1
    assert len(rwalk.importances("fisher")) == 4
