"""What a probe reads off a model."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.data import Subset

from replay.models import points, trained_looking
from rwalk.replay import Probe


def in_eval_mode(model):
    return copy.deepcopy(model).eval()


@pytest.mark.parametrize("batch_size", [1, 4, 256])
def test_features_are_the_named_layers_output_in_eval_mode(batch_size):
    model, (data, _) = trained_looking(), points(10)
    probe, x, twin = Probe(model, batch_size=batch_size), data.tensors[0], in_eval_mode(model)
    with torch.no_grad():
        for depth in range(4):
            found = probe.features([data], f"body.{depth}")
            # body.1 is followed by a ReLU in place, which must not show
            torch.testing.assert_close(found, twin.body[: depth + 1](x))
        torch.testing.assert_close(probe.features([data], classifier="classify"), twin.body(x))
        torch.testing.assert_close(probe.logits([data]), twin(x))
    assert bool((probe.features([data], "body.1") < 0).any())


def test_samples_come_in_the_order_of_the_datasets():
    model, (data, _) = trained_looking(), points(10)
    probe = Probe(model, batch_size=3)
    whole = probe.logits([data])
    parts = [Subset(data, [9, 2, 4, 7]), [(data[0][0], 0, 5)], Subset(data, [3])]
    torch.testing.assert_close(probe.logits(parts), whole[[9, 2, 4, 7, 0, 3]])


def test_features_of_several_dimensions_are_flattened():
    model = nn.Sequential(nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 3, 1), nn.Flatten(), nn.Linear(12, 3))
    data, _ = points(5)
    features = Probe(model).features([data], "1")
    assert features.shape == (5, 12)
    assert torch.equal(features, Probe(model).features([data]))


def test_the_last_call_of_a_layer_counts():
    act = nn.Tanh()
    model = nn.Sequential(nn.Linear(4, 4), act, nn.Linear(4, 4), act, nn.Linear(4, 3))
    data, _ = points(5)
    torch.testing.assert_close(Probe(model).features([data], "1"), Probe(model).features([data]))


def test_the_forward_pass_and_the_loader_may_be_ones_own():
    model, (data, _) = trained_looking(), points(6)
    seen = []

    def forward(batch):
        seen.append(batch[1].tolist())
        return model(-batch[0])

    def loader(dataset, batch_size):
        return [[dataset.tensors[0][:2], dataset.tensors[1][:2]], [dataset.tensors[0][2:], dataset.tensors[1][2:]]]

    found = Probe(model, forward=forward, loader=loader).logits([data])
    assert seen == [[0, 1], [2, 0, 1, 2]]
    torch.testing.assert_close(found, in_eval_mode(model)(-data.tensors[0]).detach())


@pytest.mark.parametrize("layer", [None, "body.0", "body.9", "recurrent"])
def test_no_hook_is_left_and_nothing_is_changed_whatever_happens(layer):
    model, (data, _) = trained_looking(), points(6)
    state, generator = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    try:
        Probe(model).features([data], layer, "classify")
    except (ValueError, TypeError):
        assert layer in {"body.9", "recurrent"}
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert module.training
    torch.testing.assert_close(model.state_dict(), state, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("layer", "error", "message"),
    [
        ("bodi.0", ValueError, "no layer 'bodi.0'; the names most like it: body.0"),
        ("recurrent", TypeError, "layer 'recurrent' gives a tuple: expected a tensor with a row for each sample"),
        ("unused", ValueError, "layer 'unused': the layer is not called in a forward pass"),
        ("total", ValueError, r"layer 'total' gives shape \(24,\) for 6 samples: expected a row for each"),
        (None, ValueError, "the input of layer 'unused': the layer is not called in a forward pass"),
    ],
)
def test_a_layer_that_gives_no_features_is_refused(layer, error, message):
    with pytest.raises(error, match=message):
        Probe(trained_looking()).features([points(6)[0]], layer)


def test_a_model_that_gives_no_tensor_is_refused():
    class Named(nn.Module):
        def forward(self, x):
            return {"out": x}

    with pytest.raises(TypeError, match="the model gives a dict: expected a tensor"):
        Probe(Named()).logits([points(6)[0]])


def test_of_several_outputs_the_first_are_the_logits():
    model, samples = nn.GRU(4, 2), points(6)[0]
    expected = Probe(model, forward=lambda batch: model(batch[0])[0]).logits([samples])
    assert torch.equal(Probe(model).logits([samples]), expected)


def test_rows_of_different_lengths_are_refused():
    model = nn.Identity()
    lengths = Probe(model, forward=lambda batch: torch.zeros(len(batch[1]), len(batch[1])), batch_size=4)
    with pytest.raises(ValueError, match=r"shapes \[\(2,\), \(4,\)\]: expected as many features of each sample"):
        lengths.logits([points(6)[0]])


def test_a_batch_has_a_sample():
    with pytest.raises(ValueError, match="batch_size=0: expected at least 1"):
        Probe(nn.Identity(), batch_size=0)


def compiled(model):
    return torch.compile(model, backend="eager")


def compiled_in_place(model):
    model.compile(backend="eager")
    return model


def compiled_in_part(model):
    model.body = torch.compile(model.body, backend="eager")
    return model


@pytest.mark.parametrize("wrap", [compiled, compiled_in_place, nn.DataParallel, compiled_in_part])
def test_wrapped_and_compiled_models_are_read_like_plain_ones(wrap):
    torch.compiler.reset()
    model, (data, _) = trained_looking().eval(), points(6)
    probe, layers = Probe(model), ("body.2", "body.0", None)
    expected = [probe.features([data], layer, "classify") for layer in layers]
    logits = probe.logits([data])
    wrapped = wrap(model)
    with torch.no_grad():
        wrapped(data.tensors[0])  # compiled now, when there is no hook, and as the probe will call it
    for layer, features in zip(layers, expected, strict=True):
        torch.testing.assert_close(Probe(wrapped).features([data], layer, "classify"), features)
    torch.testing.assert_close(Probe(wrapped).logits([data]), logits)


class Named(nn.Module):
    """Takes columns by name, counts on no others, and gives what Hugging Face's models give."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, ids, mask=None, labels=None):
        assert labels is None
        scores = self.last(self.first(ids).tanh())
        return {"logits": scores if mask is None else scores * mask, "hidden": (scores,)}


class Whole(Named):
    """Takes a mapping as it is."""

    def forward(self, columns):
        return super().forward(columns["ids"])["logits"]


ROWS = {
    "labels": lambda x, y: {"ids": x, "labels": y},
    "label": lambda x, y: {"ids": x, "label": y, "task_labels": 0},
    "list": lambda x, y: {"ids": x.tolist(), "labels": y},
    "nested": lambda x, y: ({"ids": x}, y),
}


@pytest.mark.parametrize("model", [Named, Whole])
@pytest.mark.parametrize("kind", ROWS)
def test_rows_reach_the_model_by_name_without_their_labels_and_logits_are_taken_out(kind, model):
    torch.manual_seed(0)
    model, x = model(), points(6)[0].tensors[0]
    rows = [ROWS[kind](inputs, index % 3) for index, inputs in enumerate(x)]
    probe = Probe(model, batch_size=4)
    hidden = model.first(x).tanh()
    torch.testing.assert_close(probe.features([rows]), hidden.detach())
    torch.testing.assert_close(probe.logits([rows]), model.last(hidden).detach())


def test_inputs_without_labels_are_looked_at_one_by_one():
    x = points(6)[0].tensors[0]
    assert torch.equal(Probe(nn.Identity()).logits([x]), x)


def test_columns_that_the_model_does_not_take_are_named_with_the_way_out():
    rows = [{"x": row, "label": 0} for row in torch.zeros(2, 4)]
    with pytest.raises(TypeError, match=r"Linear cannot be called with 'x' \(.*say how with Probe\(model, forward="):
        Probe(nn.Linear(4, 3)).logits([rows])
    found = Probe(nn.Linear(4, 3), forward=lambda batch: batch["x"]).logits([rows])
    assert found.shape == (2, 4)
