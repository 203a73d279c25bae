"""The comparison's guest is Avalanche itself: same first weights, same batches' make-up, and a whole command."""

import json

import pytest
import torch
from avalanche.training.storage_policy import HerdingSelectionStrategy
from benchmarks.beside_avalanche.command import main
from benchmarks.beside_avalanche.guests import _Herding, their_network, their_plugins
from benchmarks.beside_avalanche.learning import beginning, by_avalanche
from benchmarks.beside_avalanche.passes import ReplayInPasses
from benchmarks.beside_avalanche.protocols import AVALANCHE, PROTOCOLS, RESTRICTED, RWALK
from benchmarks.peers import avalanche_naive

from rwalk.experiments.data import stream_of
from rwalk.experiments.runner import build_strategy
from rwalk.integrations.avalanche import to_avalanche
from rwalk.models import ModelCall
from rwalk.training import ReplayPlugin

pytestmark = pytest.mark.filterwarnings("ignore")

SINGLE, MULTI = PROTOCOLS
DIGITS = {"benchmark": "split-digits", "epochs": 1, "batch_size": 16, "replay_batch_size": 128}


@pytest.mark.parametrize(("protocol", "heads"), [(SINGLE, "single"), (SINGLE, "masked"), (MULTI, "multi")])
def test_their_network_gives_the_scores_of_ours_within_the_classes_that_count(protocol, heads):
    spec = protocol.spec({**DIGITS, "heads": heads})
    data = stream_of(spec)
    stream = to_avalanche(data).train_stream
    ours = beginning(spec, data)[0]
    theirs = their_network(beginning(spec, data)[0], heads, data.n_classes, stream)
    for module, experience in ((ours, data.train_stream[2]), (theirs, stream[2])):
        for part in module.modules():
            if heads == "masked" and hasattr(part, "adaptation"):
                part.adaptation(experience)
    x, y, tasks = data.train_stream[2].dataset.batch(slice(0, 40))
    scores = [ModelCall(network)(x, tasks) for network in (ours, theirs)]
    classes = list(range(10)) if heads == "single" else [4, 5]
    torch.testing.assert_close(scores[0][:, classes], scores[1][:, classes])
    losses = [torch.nn.functional.cross_entropy(score, y) for score in scores]
    torch.testing.assert_close(losses[0], losses[1])


def test_growing_heads_are_refused():
    spec = SINGLE.spec({**DIGITS, "heads": "growing"})
    with pytest.raises(
        ValueError, match="heads='growing': Avalanche's RWalkPlugin takes 'single', 'masked' or 'multi'"
    ):
        by_avalanche(spec)


class BatchSizes:
    """Notes how many samples of each class set a batch holds, new and old apart."""

    supports_distributed = True

    def __init__(self):
        self.seen = []

    def before_forward(self, strategy, **kwargs):
        new = torch.isin(strategy.mb_y, torch.tensor(list(strategy.experience.classes_in_this_experience)))
        old = [tuple(x.flatten().tolist()) for x in strategy.mb_x[~new]]
        self.seen.append((int(new.sum()), len(old), len(set(old))))


@pytest.mark.parametrize("asked", [30, "balanced"])
@pytest.mark.parametrize("sampler", ["uniform", "mean-of-features"])
@pytest.mark.parametrize("budget", [{"exemplars": 10}, {"exemplars": 0, "exemplars_total": 50}])
def test_replay_in_passes_makes_batches_up_as_avalanche_does(budget, sampler, asked):
    spec = SINGLE.spec({**DIGITS, "epochs": 2, "sampler": sampler, "replay_batch_size": asked, **budget})
    data = stream_of(spec)
    ours, theirs = BatchSizes(), BatchSizes()
    replay = ReplayPlugin(
        per_class=spec.exemplars or None,
        mem_size=spec.exemplars_total,
        batch_size_mem=spec.replay_batch_size,
        sampler=sampler,
    )
    strategy = build_strategy(spec, data, [ReplayInPasses.like(replay), ours])
    for experience in data.train_stream:
        strategy.train(experience)
    ours_network, optimizer = beginning(spec, data)
    stream = to_avalanche(data).train_stream
    network = their_network(ours_network, spec.heads, data.n_classes, stream)
    strategy = avalanche_naive(
        network, optimizer, train_mb_size=16, train_epochs=2, plugins=[*their_plugins(spec, data, network), theirs]
    )
    for experience in stream:
        strategy.train(experience)
    assert ours.seen == theirs.seen
    assert {old for _, old, _ in ours.seen} > {0}


def test_herding_that_stops_at_the_budget_chooses_what_avalanches_chooses():
    features = torch.randn(60, 5, generator=torch.Generator().manual_seed(0)).double()
    network = torch.nn.Sequential(torch.nn.Identity())
    whole = HerdingSelectionStrategy(network, "0").make_sorted_indices_from_features(features)
    stopped = _Herding(network, "0", budget=12).make_sorted_indices_from_features(features)
    assert stopped == whole[:12]
    assert sorted(whole) == list(range(60))


def test_the_command_compares_both_on_split_digits(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("RWALK_CACHE_DIR", str(tmp_path))
    target = tmp_path / "beside.json"
    changes = [f"--set={name}={value}" for name, value in DIGITS.items()]
    main(["--quick", *changes, "--grid", "1", "--jobs", "1", "--json", str(target)])
    report = json.loads(target.read_text(encoding="utf-8"))
    labels = [[row["label"] for row in study["rows"]] for study in report["studies"]]
    assert labels == [[RWALK, RESTRICTED, AVALANCHE], [RWALK, AVALANCHE]]
    for study in report["studies"]:
        for row in study["rows"]:
            assert row["errors"] == {}
            assert row["mean"]["average_accuracy"] > 0.3
            assert row["config"]["rwalk"]["ewc_lambda"] == 1.0
        assert set(study["rows"][0]["differences"]) >= {"average_accuracy", "forgetting", "intransigence"}
    assert report["versions"]["avalanche-lib"]
    assert AVALANCHE in capsys.readouterr().out


def test_weights_that_are_not_finite_end_the_run_with_the_reason():
    spec = SINGLE.spec({**DIGITS, "sampler": "uniform", "rwalk": {"delta_t": 1000}})
    with pytest.raises(RuntimeError, match=r"weights are not finite after experience 1: .* fewer than delta_t"):
        by_avalanche(spec)
