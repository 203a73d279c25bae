"""RWalkConfig.avalanche() follows Avalanche's own RWalkPlugin, number for number."""

import copy

import pytest
import torch
from avalanche.training.plugins import ReplayPlugin as TheirReplay
from avalanche.training.plugins import RWalkPlugin as TheirRWalk

from peers.cases import MODELS, OPTIMIZERS, accuracy, seed_all, their_strategy, toy_benchmark
from rwalk import RWalkConfig
from rwalk.integrations.avalanche import to_avalanche
from rwalk.training import Naive, RWalkPlugin

pytestmark = pytest.mark.filterwarnings("ignore")

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
PENALTY = {"ewc_lambda": 5.0, "ewc_alpha": 0.9, "delta_t": 10}


@pytest.fixture(autouse=True)
def _default_dtype(request):
    """Avalanche keeps its sums in torch's default dtype, whatever the model's."""
    chosen = getattr(request.node, "callspec", None)
    torch.set_default_dtype(chosen.params.get("dtype", torch.float32) if chosen else torch.float32)
    yield
    torch.set_default_dtype(torch.float32)


def their_numbers(plugin):
    """Fisher, scores and penalties of Avalanche's plugin after an experience."""
    kept = {"fisher": plugin.exp_importance, "score": plugin.exp_scores, "penalty": plugin.exp_penalties}
    return {kind: {name: value.data.clone() for name, value in values.items()} for kind, values in kept.items()}


def our_numbers(plugin):
    return {kind: plugin.rwalk.importances(kind) for kind in ("fisher", "score", "penalty")}


def train(strategy, stream, data, numbers, plugin, in_one_call=False, **options):
    """Parameters, numbers and accuracies after each experience."""
    history = []

    def look():
        values = {name: p.detach().clone() for name, p in strategy.model.named_parameters()}
        history.append(
            {"parameters": values, **numbers(plugin), "accuracy": accuracy(strategy.model, data.test_stream)}
        )

    for experience in [stream] if in_one_call else stream:
        seed_all(1)
        strategy.train(experience, **options)
        look()
    return history


def distance(ours, theirs):
    """Largest difference relative to the largest entry, over all tensors of one kind."""
    scale = max(float(value.abs().max()) for value in theirs.values())
    return max(float((ours[name] - theirs[name]).abs().max()) for name in theirs) / max(scale, 1e-300)


def compare(case, ours, theirs, dtype, report):
    kinds = ("parameters", "fisher", "score", "penalty")
    worst = {kind: max(distance(o[kind], t[kind]) for o, t in zip(ours, theirs, strict=True)) for kind in kinds}
    report(case, worst)
    assert worst["parameters"] <= TOLERANCE[dtype], worst
    assert max(worst.values()) <= 20 * TOLERANCE[dtype], worst  # scores divide by as little as one machine epsilon
    assert [step["accuracy"] for step in ours] == [step["accuracy"] for step in theirs]


def side_by_side(model, optimizer, dtype, penalty, *, replay=False, in_one_call=False, experiences=3):
    """Both plugins in Avalanche's strategy, from the same weights, over the same batches."""
    build, shape = MODELS[model]
    data = toy_benchmark(dtype, shape, experiences=experiences)
    stream = to_avalanche(data).train_stream
    seed_all(0)
    first = build().to(dtype)
    histories = []
    for plugin, numbers in (
        (RWalkPlugin.from_config(RWalkConfig.avalanche(**penalty)), our_numbers),
        (TheirRWalk(**penalty), their_numbers),
    ):
        network = copy.deepcopy(first)
        plugins = [plugin, TheirReplay(mem_size=12)] if replay else [plugin]
        strategy = their_strategy(network, OPTIMIZERS[optimizer](network.parameters()), plugins)
        histories.append(train(strategy, stream, data, numbers, plugin, in_one_call))
    return histories


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("model", MODELS)
def test_models_and_optimizers(model, optimizer, dtype, report):
    ours, theirs = side_by_side(model, optimizer, dtype, PENALTY)
    compare(f"{model}, {optimizer}, {dtype}", ours, theirs, dtype, report)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    "penalty",
    [
        {"ewc_lambda": 0.1, "ewc_alpha": 0.5, "delta_t": 1},
        {"ewc_lambda": 20.0, "ewc_alpha": 0.1, "delta_t": 7},
        {"ewc_lambda": 1.0, "ewc_alpha": 1.0, "delta_t": 24},
        {"ewc_lambda": 3.0, "ewc_alpha": 0.0, "delta_t": 5},
    ],
    ids=str,
)
def test_strengths_averages_and_windows(penalty, dtype, report):
    ours, theirs = side_by_side("mlp", "momentum", dtype, penalty)
    compare(f"{penalty}, {dtype}", ours, theirs, dtype, report)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_with_replay(dtype, report):
    ours, theirs = side_by_side("mlp", "momentum", dtype, PENALTY, replay=True)
    compare(f"replay, {dtype}", ours, theirs, dtype, report)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_several_experiences_in_one_call_carry_an_unfinished_window_over(dtype, report):
    ours, theirs = side_by_side("mlp", "sgd", dtype, {**PENALTY, "delta_t": 13}, in_one_call=True)
    compare(f"one train() call, {dtype}", ours, theirs, dtype, report)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_in_our_own_template(dtype, report):
    data = toy_benchmark(dtype)
    seed_all(0)
    first = MODELS["mlp"][0]().to(dtype)
    theirs, mine = TheirRWalk(**PENALTY), RWalkPlugin.from_config(RWalkConfig.avalanche(**PENALTY))
    network = copy.deepcopy(first)
    strategy = their_strategy(network, OPTIMIZERS["adam"](network.parameters()), [theirs])
    expected = train(strategy, to_avalanche(data).train_stream, data, their_numbers, theirs, shuffle=False)
    network = copy.deepcopy(first)
    strategy = Naive(
        model=network,
        optimizer=OPTIMIZERS["adam"](network.parameters()),
        train_mb_size=6,
        train_epochs=6,
        plugins=[mine],
    )
    found = train(strategy, data.train_stream, data, our_numbers, mine, shuffle=False)
    compare(f"our template, {dtype}", found, expected, dtype, report)


def test_the_comparison_notices_another_variant(report):
    """The same case with CapyMOA's settings is far off: agreement above is no accident of the measure."""
    _, theirs = side_by_side("mlp", "momentum", torch.float64, PENALTY)
    build, shape = MODELS["mlp"]
    data = toy_benchmark(torch.float64, shape)
    seed_all(0)
    network = build().double()
    plugin = RWalkPlugin.from_config(RWalkConfig.capymoa(**PENALTY))
    strategy = their_strategy(network, OPTIMIZERS["momentum"](network.parameters()), [plugin])
    ours = train(strategy, to_avalanche(data).train_stream, data, our_numbers, plugin)
    with pytest.raises(AssertionError):
        compare("(capymoa settings, must differ)", ours, theirs, torch.float64, report)
