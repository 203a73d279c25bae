"""Small networks with adapters of each kind, and how they are trained."""

from __future__ import annotations

import torch
from peft import LoraConfig, get_peft_model
from torch import nn


class Mixed(nn.Module):
    """One layer of each kind that LoRA adapts."""

    def __init__(self):
        super().__init__()
        self.tokens, self.mix = nn.Embedding(12, 6), nn.Conv2d(1, 3, 3, padding=1)
        self.hidden, self.head = nn.Linear(6 * 5 * 3, 8), nn.Linear(8, 4)

    def forward(self, tokens):
        image = self.tokens(tokens).unsqueeze(1)
        return self.head(self.hidden(self.mix(image).tanh().flatten(1)).tanh())


def lora(base, modules, **options):
    torch.manual_seed(1)
    return get_peft_model(base, LoraConfig(**{"r": 2, "target_modules": modules, **options}))


def mixed(**options):
    torch.manual_seed(0)
    return lora(Mixed().double(), ["tokens", "mix", "hidden", "head"], lora_alpha=5, **options)


def some(seed=0, count=6):
    return torch.randint(0, 12, (count, 5), generator=torch.Generator().manual_seed(seed))


def adam(model):
    return torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)


def sgd(model):
    return torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-2)


def train(model, optimizer, steps=3, seed=9):
    for step in range(steps):
        optimizer.zero_grad()
        model(some(seed + step)).square().sum().backward()
        optimizer.step()
