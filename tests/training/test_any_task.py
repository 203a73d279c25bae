"""Any supervised loss, and batches that are nested, or mappings."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from rwalk.batches import task_labels_of, to_device
from rwalk.streams import Stream
from rwalk.training import EvaluationPlugin, LoggingPlugin, MASPlugin, Naive, RWalkPlugin
from training.toys import Recorder

N, WIDTH = 20, 6


class Items(Dataset):
    """Samples made one by one; class labels only so that they may stand in a stream."""

    targets = torch.zeros(N, dtype=torch.int64)

    def __init__(self, make):
        self.make = make

    def __len__(self):
        return N

    def __getitem__(self, index):
        return self.make(index)


def values(*shape, seed=0):
    return torch.randn(N, *shape, generator=torch.Generator().manual_seed(seed))


X = values(WIDTH)


def learn(make, model, criterion=None, *, evaluator=None, plugins=(), **options):
    """Train on the items, then evaluate on them; the metrics of the stream, by name, and the strategy."""
    torch.manual_seed(0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    walk = RWalkPlugin(ewc_lambda=1.0)
    strategy = Naive(
        model=model,
        optimizer=optimizer,
        criterion=criterion,
        plugins=[walk, *plugins],
        evaluator=evaluator,
        **{"train_mb_size": 8, **options},
    )
    strategy.train(Stream("train", [Items(make)] * 2))
    assert walk.rwalk.tasks == 2
    metrics = strategy.eval(Stream("test", [Items(make)] * 2))
    suffix = "_Stream/eval_phase/test_stream"
    return {name.removesuffix(suffix): value for name, value in metrics.items() if name.endswith(suffix)}, strategy


MULTI = (values(WIDTH, seed=1) > 0).float()
SOFT = values(3, seed=2).softmax(1)


@pytest.mark.parametrize(
    ("y", "outputs", "criterion"),
    [
        (values(1, seed=1), 1, nn.MSELoss()),
        (torch.zeros(N, 1, dtype=torch.int64), 1, lambda out, y: F.mse_loss(out, y.float())),
        (MULTI, WIDTH, nn.BCEWithLogitsLoss()),
        (MULTI[:, :4], 4, nn.BCEWithLogitsLoss()),
        (SOFT, 3, nn.CrossEntropyLoss()),
        (SOFT, 3, None),
    ],
    ids=["regression", "whole numbers", "as many labels as samples", "labels", "soft labels", "soft labels by default"],
)
def test_where_there_is_no_accuracy_there_is_the_loss(y, outputs, criterion):
    model = nn.Linear(WIDTH, outputs)
    metrics, strategy = learn(lambda i: (X[i], y[i]), model, criterion)
    assert set(metrics) == {"Loss"}
    with torch.no_grad():
        expected = (criterion or nn.CrossEntropyLoss())(model(X), y)
    assert metrics["Loss"] == pytest.approx(float(expected), rel=1e-5)
    assert strategy.evaluator.matrices == {}
    assert strategy.evaluator.tables["Loss", "test"].tolist() == [[None, None], [pytest.approx(metrics["Loss"])] * 2]


class Sequences(nn.Module):
    """Scores (B, C, L), or (B, L, C), for inputs (B, L)."""

    def __init__(self, *, classes_last=False):
        super().__init__()
        self.embedding, self.classes_last = nn.Embedding(10, 3), classes_last

    def forward(self, x):
        found = self.embedding(x)
        return found if self.classes_last else found.movedim(-1, 1)


TOKENS = torch.arange(N * 5).view(N, 5) % 10
TAGS = torch.where(torch.arange(5) < 1 + torch.arange(N)[:, None] % 5, TOKENS % 3, -100)  # padded


@pytest.mark.parametrize("ignored", [-100, 1])
def test_in_sequences_with_masks_what_counts_counts(ignored):
    tags = torch.where(TAGS < 0, ignored, TAGS)
    model = Sequences()
    metrics, _ = learn(lambda i: (TOKENS[i], tags[i]), model, nn.CrossEntropyLoss(ignore_index=ignored))
    with torch.no_grad():
        scores = model(TOKENS)
    mask = tags != ignored
    right = (scores.argmax(1) == tags)[mask].float().mean()
    assert metrics["Top1_Acc"] == pytest.approx(float(right))
    expected = F.cross_entropy(scores, tags, ignore_index=ignored)  # over all targets that count, not over batches
    assert metrics["Loss"] == pytest.approx(float(expected), rel=1e-5)


def test_a_batch_without_any_target_that_counts_adds_nothing():
    tags = TAGS.clone()
    tags[:8] = -100  # the first batch of an evaluation
    model = Sequences()
    metrics, _ = learn(lambda i: (TOKENS[i], tags[i]), model, nn.CrossEntropyLoss(), train_mb_size=N, eval_mb_size=8)
    with torch.no_grad():
        expected = F.cross_entropy(model(TOKENS), tags)
    assert metrics["Loss"] == pytest.approx(float(expected), rel=1e-5)


class ByName(nn.Module):
    """Takes its inputs by name."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(WIDTH, 2)

    def forward(self, ids, scale=None):
        return self.linear(ids if scale is None else ids * scale)


class Whole(ByName):
    """Takes a dictionary."""

    def forward(self, x):
        return super().forward(**x)


class OwnLoss(ByName):
    """As Hugging Face's models: a mapping with logits, and the loss if it is given labels."""

    def forward(self, ids, scale=None, labels=None):
        logits = super().forward(ids, scale)
        loss = None if labels is None else 2.0 * F.cross_entropy(logits, labels)
        return {"logits": logits} if loss is None else {"loss": loss, "logits": logits}


Y = torch.arange(N) % 2
DICTIONARIES = {
    "inputs by name": (lambda i: ({"ids": X[i], "scale": torch.tensor(2.0).expand(1)}, Y[i]), ByName, 1.0),
    "inputs as one": (lambda i: ({"ids": X[i], "scale": torch.tensor(2.0).expand(1)}, Y[i]), Whole, 1.0),
}


@pytest.mark.parametrize("name", DICTIONARIES)
def test_inputs_may_be_dictionaries(name):
    make, kind, _ = DICTIONARIES[name]
    model = kind()
    metrics, strategy = learn(make, model, plugins=[MASPlugin()])
    with torch.no_grad():
        scores = model.linear(2 * X)
    assert metrics["Top1_Acc"] == pytest.approx(float((scores.argmax(1) == Y).float().mean()))
    assert metrics["Loss"] == pytest.approx(float(F.cross_entropy(scores, Y)), rel=1e-5)
    assert set(strategy.mb_x) == {"ids", "scale"}


def rows(samples):
    """A collator as Hugging Face's: one dictionary."""
    return {"ids": torch.stack([x for x, _ in samples]), "labels": torch.stack([y for _, y in samples])}


@pytest.mark.parametrize(("kind", "factor"), [(ByName, 1.0), (OwnLoss, 2.0)])
def test_a_batch_may_be_a_mapping_and_the_models_own_loss_counts(kind, factor):
    model = kind()
    seen = Recorder(lambda strategy: (set(strategy.mb_x), strategy.mb_task_id.tolist()), "after_forward")
    metrics, _ = learn(lambda i: (X[i], Y[i]), model, collate_fn=rows, plugins=[seen])
    with torch.no_grad():
        scores = model.linear(X)
    assert metrics["Loss"] == pytest.approx(factor * float(F.cross_entropy(scores, Y)), rel=1e-5)
    assert metrics["Top1_Acc"] == pytest.approx(float((scores.argmax(1) == Y).float().mean()))
    assert all(names == {"ids"} and set(tasks) == {0} for names, tasks in seen.notes("after_forward"))


def test_a_criterion_that_is_given_is_the_loss_whatever_the_model_computes():
    model = OwnLoss()
    metrics, _ = learn(
        lambda i: (X[i], Y[i]), model, lambda out, y: 3.0 * F.cross_entropy(out["logits"], y), collate_fn=rows
    )
    with torch.no_grad():
        expected = 3.0 * F.cross_entropy(model.linear(X), Y)
    assert metrics["Loss"] == pytest.approx(float(expected), rel=1e-5)


def test_sequences_whose_loss_the_model_computes_have_no_accuracy():
    class Tagger(Sequences):
        def forward(self, ids, labels):
            scores = super().forward(ids)
            return {"loss": F.cross_entropy(scores.movedim(-1, 1), labels), "logits": scores}

    model = Tagger(classes_last=True)
    metrics, _ = learn(lambda i: (TOKENS[i], TAGS[i]), model, collate_fn=rows)
    with torch.no_grad():
        expected = model(TOKENS, TAGS)["loss"]
    assert metrics == {"Loss": pytest.approx(float(expected), rel=1e-5)}


def test_several_lengths_are_a_collators_matter():
    def padded(samples):
        return nn.utils.rnn.pad_sequence([x for x, _ in samples], batch_first=True), torch.stack(
            [y for _, y in samples]
        )

    class Sums(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(1, 2)

        def forward(self, x):
            return self.linear(x.sum(1, keepdim=True))

    def make(i):
        return torch.ones(1 + i), Y[i]

    metrics, strategy = learn(make, Sums(), collate_fn=padded, plugins=[MASPlugin(samples=5)])
    assert set(metrics) == {"Top1_Acc", "Loss"}
    strategy.collate_fn, stream = None, Stream("test", [Items(make)] * 2)
    with pytest.raises(ValueError, match="bring them to one shape with a collate_fn"):
        strategy.eval(stream)
    again = strategy.eval(stream, collate_fn=padded)
    assert again["Loss_Stream/eval_phase/test_stream"] == pytest.approx(metrics["Loss"])


def test_batches_are_moved_at_any_depth():
    batch = [{"a": (torch.zeros(2), "name", 3)}, nn.utils.rnn.pack_sequence([torch.zeros(2)]), [torch.zeros(1)]]
    moved = to_device(batch, torch.device("meta"))
    assert moved[0]["a"][0].device == moved[1].data.device == moved[2][0].device == torch.device("meta")
    assert moved[0]["a"][1:] == ("name", 3)
    here = torch.zeros(2)
    assert to_device([here], torch.device("cpu"))[0] is here


@pytest.mark.parametrize("batch", [[X, Y], {"ids": X, "labels": Y}])
def test_where_a_batch_holds_no_task_labels_they_are_the_experiences(batch):
    assert task_labels_of(batch, 3).tolist() == [3] * N


@pytest.mark.parametrize("batch", [[X, Y, Y + 5], {"ids": X, "labels": Y, "task_labels": Y + 5}])
def test_task_labels_that_a_batch_holds_are_its_own(batch):
    assert torch.equal(task_labels_of(batch, 3), Y + 5)


def test_any_loss_has_a_line_in_the_log(caplog):
    with caplog.at_level("INFO", "rwalk"):
        metrics, _ = learn(lambda i: (X[i], SOFT[i]), nn.Linear(WIDTH, 3), plugins=[LoggingPlugin()])
    assert caplog.messages[-1] == f"test experience 1: loss {metrics['Loss']:.4f}"


def test_experiences_may_have_batches_of_unequal_size_and_means_are_of_samples():
    """20 samples in batches of 8: the last one counts half."""
    evaluator = EvaluationPlugin(track_training=True)
    losses = Recorder(lambda s: (float(s.loss.detach()), len(s.mb_y)), "after_training_iteration")
    _, strategy = learn(lambda i: (X[i], SOFT[i]), nn.Linear(WIDTH, 3), evaluator=evaluator, plugins=[losses])
    last = losses.notes("after_training_iteration")[-3:]
    found = strategy.evaluator.get_last_metrics()["Loss_Epoch/train_phase/train_stream"]
    assert [size for _, size in last] == [8, 8, 4]
    assert found == pytest.approx(sum(loss * size for loss, size in last) / N)
