"""Language models are protected by the Fisher of whole sequences: causal ones, with padding, tied weights, masks."""

import pytest
import torch
from torch import nn

pytest.importorskip("transformers")

from transformers import BertConfig, BertForMaskedLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from rwalk import RWalk, RWalkConfig, RWalkError

SMALL = {"vocab_size": 40, "bos_token_id": 1, "eos_token_id": 2}
HIDDEN = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
MODELS = {
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(n_positions=16, n_embd=16, n_layer=2, n_head=2, **SMALL)),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**HIDDEN, **SMALL, tie_word_embeddings=True)),
    "bert": lambda: BertForMaskedLM(BertConfig(vocab_size=40, **HIDDEN)),
}


def batches(name):
    random = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 40, (6, 9), generator=random)
    mask = torch.ones_like(ids)
    mask[::2, 6:] = 0
    labels = ids.masked_fill(mask == 0, -100)
    if name == "bert":  # only what was masked counts
        labels = labels.masked_fill(torch.rand(ids.shape, generator=random) < 0.6, -100)
    whole = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    return [{key: value[i : i + 3] for key, value in whole.items()} for i in (0, 3)]


@pytest.mark.parametrize("name", MODELS)
def test_whole_sequences_are_the_samples(name):
    torch.manual_seed(0)
    model = MODELS[name]().double()
    rwalk = RWalk(model, torch.optim.SGD(model.parameters(), lr=0.1), RWalkConfig())
    assert rwalk.protect(batches(name), labels="data").samples == 6
    model.eval()
    expected = {key: torch.zeros_like(p) for key, p in model.named_parameters()}
    for batch in batches(name):
        for i in range(3):
            one = {key: value[i : i + 1] for key, value in batch.items()}
            labels = one.pop("labels")
            logits = model(**one).logits
            if name != "bert":
                logits, labels = logits[:, :-1], labels[:, 1:]
            loss = nn.functional.cross_entropy(logits[0], labels[0], reduction="sum", ignore_index=-100)
            gradients = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
            for key, gradient in zip(expected, gradients, strict=True):
                expected[key] += 0.0 if gradient is None else gradient.square() / 6
    for key, value in rwalk.importances("fisher").items():
        torch.testing.assert_close(value, expected[key], rtol=1e-9, atol=1e-15)


def test_padding_does_not_count_without_labels():
    torch.manual_seed(0)
    model = MODELS["llama"]()
    cut = [{key: value[:1, :6] for key, value in batches("llama")[0].items() if key != "labels"}]
    padded = [{key: value[:1] for key, value in batches("llama")[0].items() if key != "labels"}]
    found = []
    for given in (cut, padded):
        rwalk = RWalk(model, torch.optim.SGD(model.parameters(), lr=0.1), RWalkConfig(), attach=False)
        rwalk.protect(given, labels="argmax", likelihood="categorical")
        found.append(rwalk.importances("fisher"))
    for key, value in found[0].items():
        torch.testing.assert_close(value, found[1][key], rtol=1e-4, atol=1e-9)


def test_a_loss_that_is_no_cross_entropy_of_the_labels_is_refused():
    torch.manual_seed(0)
    model = MODELS["gpt2"]()
    model.loss_function = lambda logits, labels, **_: logits.square().mean()
    rwalk = RWalk(model, torch.optim.SGD(model.parameters(), lr=0.1), RWalkConfig())
    with pytest.raises(RWalkError, match="the model's own loss"):
        rwalk.protect(batches("gpt2"), labels="data")
