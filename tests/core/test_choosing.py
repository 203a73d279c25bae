"""``choose_lambda``: the trials are what one would do by hand, and the model is left alone."""

import copy

import pytest
import torch
from torch import nn

from reference.problems import assert_same
from rwalk import RWalk, RWalkConfig, RWalkError, StateError, choose_lambda
from rwalk.core import choosing
from rwalk.core.choosing import Trial

X = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
OLD, NEW = [X[:20], X[20:30]], [(X[30:], (X[30:, 0] > 0).long())]


def network():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Dropout(0.1), nn.Linear(16, 2))


def adam(model):
    return torch.optim.Adam(model.parameters(), lr=0.02)


def train(model, optimizer):
    for _ in range(30):
        index = torch.randint(30, (8,))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(NEW[0][0][index]), NEW[0][1][index]).backward()
        optimizer.step()


def test_trials_are_what_one_would_do_by_hand():
    model = network()
    before = copy.deepcopy(model.state_dict())
    torch.manual_seed(5)
    choice = choose_lambda(model, adam, train, OLD, NEW, grid=[0.0, 3.0, 1e4], max_samples=25)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    assert model.training
    model.eval()
    answers = [model(x).argmax(1) for x in OLD]
    model.train()
    for trial in choice.trials:
        torch.manual_seed(5)
        twin = copy.deepcopy(model)
        optimizer = adam(twin)
        RWalk(twin, optimizer, RWalkConfig(ewc_lambda=trial.ewc_lambda)).protect(OLD, max_samples=25)
        train(twin, optimizer)
        twin.eval()
        same = torch.cat([twin(x).argmax(1) == answer for x, answer in zip(OLD, answers, strict=True)])
        assert trial.agreement == pytest.approx(float(same.float().mean()))
        assert trial.accuracy == pytest.approx(float((twin(NEW[0][0]).argmax(1) == NEW[0][1]).float().mean()))
    weak, _, strong = choice.trials
    assert strong.agreement > weak.agreement
    best = max(trial.agreement + trial.accuracy for trial in choice.trials)
    chosen = next(trial for trial in choice.trials if trial.ewc_lambda == choice.ewc_lambda)
    assert chosen.agreement + chosen.accuracy == best
    assert str(choice).count("<- chosen") == 1


def watched(preset):
    """A network that learned under RWalk, and what RWalk has of it; one that is shares takes the task's data."""
    model = network()
    optimizer = adam(model)
    rwalk = RWalk(model, optimizer, RWalkConfig.preset(preset))
    for x in 5 * OLD:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), (x[:, 1] > 0).long()).backward()
        optimizer.step()
    if rwalk.config.fisher_source == "step":
        rwalk.consolidate()
    else:
        rwalk.consolidate([(x, (x[:, 1] > 0).long()) for x in OLD], lambda batch: model(batch[0]))
    rwalk.detach()
    return model, rwalk.state_dict()


@pytest.mark.parametrize(("preset", "strengths"), [("paper", choosing.GRID), ("laplace", choosing.SHARES)])
def test_a_watched_model_is_held_by_its_state(preset, strengths):
    model, state = watched(preset)
    copies = []

    def keep(twin, optimizer):
        train(twin, optimizer)
        copies.append(copy.deepcopy(twin.state_dict()))

    torch.manual_seed(5)
    choice = choose_lambda(model, adam, keep, OLD, NEW, state=state)
    assert tuple(trial.ewc_lambda for trial in choice.trials) == strengths
    for trial, found in zip(choice.trials, copies, strict=True):
        torch.manual_seed(5)
        twin = copy.deepcopy(model)
        optimizer = adam(twin)
        RWalk(twin, optimizer, RWalkConfig.preset(preset, ewc_lambda=trial.ewc_lambda)).load_state_dict(state)
        train(twin, optimizer)
        assert_same(twin.state_dict(), found)
    assert choice.trials[-1].agreement > choice.trials[0].agreement
    torch.manual_seed(5)
    told = choose_lambda(model, adam, train, OLD, NEW, state=state, config=RWalkConfig.paper(), class_dim=1)
    assert tuple(trial.ewc_lambda for trial in told.trials) == strengths  # importances are scaled already


def test_what_is_refused_of_a_state():
    model, state = watched("paper")
    before, optimizer = network(), adam(network())
    fresh = RWalk(before, adam(before)).state_dict()
    for given, error, message in (
        ({"state": {"weights": 1}}, StateError, "not an rwalk state"),
        ({"state": optimizer}, StateError, "not an rwalk state, but an? Adam"),
        ({"state": fresh}, RWalkError, "state knows no task that has ended"),
        ({"state": state, "max_samples": 5}, TypeError, "max_samples: of RWalk.protect, whose place the state takes"),
    ):
        with pytest.raises(error, match=message):
            choose_lambda(model, adam, lambda model, optimizer: pytest.fail("trained"), OLD, NEW, **given)
    with pytest.raises(StateError):
        choose_lambda(nn.Linear(4, 2), adam, lambda model, optimizer: pytest.fail("trained"), OLD, NEW, state=state)


def test_what_is_refused():
    for changes in ({"grid": []}, {"old": []}, {"new": []}):
        given = {"old": OLD, "new": NEW, "grid": [1.0], **changes}
        with pytest.raises(ValueError, match=f"{next(iter(changes))} is empty"):
            choose_lambda(network(), adam, train, **given)
    with pytest.raises(ValueError, match="ewc_lambda=-1"):
        choose_lambda(network(), adam, train, OLD, NEW, grid=[-1.0])
    with pytest.raises(RWalkError, match="new batches need labels"):
        choose_lambda(network(), adam, train, OLD, [X], grid=[1.0])
    with pytest.raises(RWalkError, match="counts classes"):
        choose_lambda(network(), adam, train, OLD, [(X, torch.randn(60, 2))], grid=[1.0])


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"grid": ("a",)}, ValueError, r"grid=\('a',\): expected strengths, numbers such as"),
        ({"grid": 5}, ValueError, "grid=5: expected strengths, numbers such as"),
        ({"old": X}, TypeError, "old is one Tensor: expected an iterable of batches"),
        ({"new": NEW[0]}, TypeError, "new is one tuple of inputs and labels: expected an iterable of batches"),
        ({"new": [X]}, RWalkError, "new batches need labels"),
        ({"new": [(X, torch.full((60,), -100))]}, RWalkError, "new has no label that counts"),
        ({"class_dim": 2}, ValueError, "class_dim=2: expected a dimension of the outputs"),
    ],
)
def test_what_is_refused_before_any_training(changes, error, message):
    def untrained(model, optimizer):
        pytest.fail("trained for nothing")

    given = {"old": OLD, "new": NEW, "grid": [1.0], **changes}
    with pytest.raises(error, match=message):
        choose_lambda(network(), adam, untrained, **given)


def test_batches_may_come_once_only_or_in_another_order_each_time():
    class Shuffled:
        """As a loader that shuffles."""

        def __iter__(self):
            return iter(OLD[0][torch.randperm(20)].split(5))

    choice = choose_lambda(network(), adam, lambda model, optimizer: None, Shuffled(), iter(NEW), grid=[0.0, 1.0])
    assert [trial.agreement for trial in choice.trials] == [1.0, 1.0]
    torch.manual_seed(5)
    expected = choose_lambda(network(), adam, train, OLD, NEW, grid=[0.0, 3.0])
    torch.manual_seed(5)
    assert choose_lambda(network(), adam, train, iter(OLD), iter(NEW), grid=iter([0.0, 3.0])) == expected


def test_a_language_models_answers_are_of_the_next_position():
    class Counts(nn.Module):
        """Says the next number, as Hugging Face's models do: loss and scores; labels are shifted by the model."""

        def __init__(self):
            super().__init__()
            self.scores = nn.Embedding.from_pretrained(10 * torch.eye(8).roll(1, dims=1), freeze=False)

        def forward(self, input_ids, labels=None):
            logits = self.scores(input_ids)
            if labels is None:
                return {"logits": logits}
            flat, target = logits[:, :-1].reshape(-1, 8), labels[:, 1:].reshape(-1)
            return {"loss": nn.functional.cross_entropy(flat, target), "logits": logits}

    rows = (torch.arange(6) + torch.arange(5)[:, None]) % 8
    batch = {"input_ids": rows, "labels": rows}
    choice = choose_lambda(
        Counts(), adam, lambda model, optimizer: None, [{"input_ids": rows}], [batch],
        grid=[1.0], likelihood="categorical",
    )  # fmt: skip
    assert choice.trials[0] == Trial(1.0, 1.0, 1.0)


def test_classes_may_be_in_another_dimension():
    torch.manual_seed(2)
    model = nn.Conv2d(1, 3, 1)
    images = torch.randn(4, 1, 5, 5)
    labels = model(images).argmax(1)
    choice = choose_lambda(
        model, adam, lambda model, optimizer: None, [images], [(images, labels)], grid=[1.0], class_dim=1
    )
    assert choice.trials[0] == Trial(1.0, 1.0, 1.0)


def test_the_dimension_of_the_classes_is_told_by_the_labels_for_old_answers_too():
    torch.manual_seed(2)
    model, signals = nn.Conv1d(2, 3, 1), torch.randn(40, 2, 7)
    labels, answers = 2 - (signals > 0).sum(1), model(signals).argmax(1)
    kept = []

    def train(model, optimizer):
        for _ in range(40):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(signals), labels).backward()
            optimizer.step()
        kept.append(float((model(signals).argmax(1) == answers).double().mean()))

    choice = choose_lambda(model, adam, train, [(signals, answers)], [(signals, labels)], grid=[0.0, 100.0])
    assert [trial.agreement for trial in choice.trials] == pytest.approx(kept)
    assert kept[0] < kept[1]


def test_batches_of_several_ranks_are_read_each_in_its_own_way():
    """Features (B, 2), or sequences of them (B, L, 2): classes are in the last dimension of both."""
    torch.manual_seed(2)
    model, x = nn.Linear(2, 3), torch.randn(24, 2)
    sequences = x.reshape(3, 8, 2)
    new = [(x, model(x).argmax(-1)), (sequences, model(sequences).argmax(-1))]
    choice = choose_lambda(model, adam, lambda model, optimizer: None, [new[0]], new, grid=[1.0])
    assert choice.trials[0] == Trial(1.0, 1.0, 1.0)


def test_a_network_that_answers_nan_keeps_and_knows_nothing():
    model = network()

    def train(model, optimizer):
        with torch.no_grad():
            model[0].weight.fill_(float("nan") if optimizer.param_groups[0]["lr"] > 0.5 else 0.0)

    for rate, expected in ((1.0, (0.0, 0.0)), (0.1, None)):
        choice = choose_lambda(
            model, lambda model, rate=rate: torch.optim.SGD(model.parameters(), lr=rate), train, OLD, NEW, grid=[0.0]
        )
        found = (choice.trials[0].agreement, choice.trials[0].accuracy)
        assert found == expected if expected else min(found) > 0.0
