"""What a state file tells of holding: beside a live report of the same weights, and counted by hand."""

from pathlib import Path

import pytest
import torch
from torch import nn

from rwalk import RWalk, RWalkConfig
from rwalk.core.inspection import summarize_state
from rwalk.core.plasticity import FREE, SATURATED


def trained(after=0, **config):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    rwalk = RWalk(model, optimizer, RWalkConfig(delta_t=5, **{"ewc_lambda": 1.0, **config}))

    def steps(count):
        for _ in range(count):
            optimizer.zero_grad()
            model(torch.randn(8, 6)).square().mean().backward()
            optimizer.step()

    steps(20)
    rwalk.consolidate()
    steps(after)
    return model, rwalk


@pytest.mark.parametrize("after", [0, 7])
def test_it_says_what_a_live_report_says(tmp_path, after):
    model, rwalk = trained(after)
    live = rwalk.report()
    rwalk.save(tmp_path / "state")
    found = summarize_state(tmp_path / "state", model.state_dict())
    for layer in [*live.layers, live.total]:
        row = found["held_layers"]["" if layer is live.total else layer.name]
        assert (row["weights"], row["held"]) == (layer.weights, pytest.approx(layer.held))
        assert row["share"] == pytest.approx(layer.importance)
        assert row["distance"] == pytest.approx(layer.distance, rel=1e-6, abs=1e-9)
        assert row["drift"] == pytest.approx(layer.drift, rel=1e-6, abs=1e-9)


def test_free_and_saturated_are_counted(tmp_path):
    _, rwalk = trained()
    rwalk.save(tmp_path / "state")
    found = summarize_state(tmp_path / "state")
    values = torch.cat([value.flatten() for value in rwalk.importances().values()])
    whole = found["held_layers"][""]
    assert whole["free"] == pytest.approx(float((values < FREE * values.max()).float().mean()))
    top = values[values >= SATURATED * values.max()].sum() / values.sum()
    assert whole["saturated"] == pytest.approx(float(top), rel=1e-5)
    rwalk.save(tmp_path / "small", compact=True)
    compact = summarize_state(tmp_path / "small")["held_layers"][""]
    assert compact["held"] == pytest.approx(whole["held"], abs=0.05)
    assert compact["distance"] is None


def warnings(tmp_path, rwalk, weights=None):
    rwalk.save(tmp_path / "state")
    return " | ".join(summarize_state(tmp_path / "state", weights)["warnings"])


def test_warnings(tmp_path):
    model, rwalk = trained()
    assert warnings(tmp_path, rwalk) == ""
    for parameter in model.parameters():
        parameter.data.mul_(3.0)
    assert "old tasks are likely lost" in warnings(tmp_path, rwalk, model.state_dict())
    assert "ewc_lambda is 0" in warnings(tmp_path, trained(ewc_lambda=0.0)[1])
    assert "saved 4 steps into a task" in warnings(tmp_path, trained(after=4)[1])
    rwalk.detach()
    fresh = RWalk(model, torch.optim.SGD(model.parameters(), lr=0.1))
    assert "nothing is protected yet" in warnings(tmp_path, fresh)
    _, flat = trained()
    for bucket in flat._tracker.buckets:
        bucket.flat["importance"].fill_(1.0)
    told = warnings(tmp_path, flat)
    assert "only 0.0 % of the weights are free" in told
    assert "100 % of the importance is saturated" in told
    first = Path(__file__).parent / "state_files" / "schema-1.safetensors"
    assert "this file has no checksums: that it is whole cannot be told" in summarize_state(first)["warnings"]
    for bucket in flat._tracker.buckets:
        bucket.flat["importance"].zero_()
    assert "every importance is 0" in warnings(tmp_path, flat)
    for bucket in flat._tracker.buckets:
        for entry in bucket.starts:
            if entry.name == "2.bias":
                bucket.view(entry, "importance").fill_(1.0)
    assert "'2' carries 100 % of the importance" in warnings(tmp_path, flat)


def test_weights_of_another_model_are_refused(tmp_path):
    _, rwalk = trained()
    rwalk.save(tmp_path / "state")
    with pytest.raises(ValueError, match=r"0\.weight: the weights have shape \[2\], the state \[16, 6\]"):
        summarize_state(tmp_path / "state", {"0.weight": torch.zeros(2)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: {}, r"0\.weight is not among the 0 weights given: give its own model's state_dict\(\)"),
        (lambda weights: {"body.weight": torch.ones(2)}, r"0\.weight is not among the 1 weights given"),
        (lambda weights: {name: weights[name] for name in list(weights)[:3]}, r"2\.bias is not among the 3 weights"),
        (lambda weights: weights | {"2.weight": torch.full((3, 16), float("nan"))}, r"2\.weight: .* not all finite"),
        (lambda weights: weights | {"2.bias": torch.tensor([0.0, 0.0, float("inf")])}, r"2\.bias: .* not all finite"),
    ],
)
def test_weights_that_lack_a_parameter_or_are_not_finite_are_refused(tmp_path, change, message):
    model, rwalk = trained()
    rwalk.save(tmp_path / "state")
    with pytest.raises(ValueError, match=message):
        summarize_state(tmp_path / "state", change(model.state_dict()))


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_weights_may_be_a_wrapped_models(tmp_path, prefix):
    model, rwalk = trained(after=3)
    rwalk.save(tmp_path / "state")
    wrapped = {prefix + name: value for name, value in model.state_dict().items()}
    expected = summarize_state(tmp_path / "state", model.state_dict())["held_layers"]
    assert expected[""]["drift"] > 0
    assert summarize_state(tmp_path / "state", wrapped)["held_layers"] == expected
