"""Who adapts, in which order, and how task labels get to where they are needed."""

import pytest
import torch
from torch import nn
from torch.nn.parallel import DataParallel

from models.arriving import experience, features
from rwalk import RWalkError
from rwalk.models import DynamicModule, IncrementalClassifier, ModelCall, MultiHeadClassifier, MultiTaskModule, adapt
from rwalk.models.dynamic import is_dynamic


class Noting(DynamicModule):
    """Writes down that it was adapted."""

    def __init__(self, name, log, inside=None, **options):
        super().__init__(**options)
        self.name, self.log = name, log
        self.inside = inside

    def adaptation(self, experience):
        self.log.append((self.name, experience, self.training))

    def forward(self, x):
        return x


class Foreign(nn.Module):
    """Follows Avalanche's protocol without knowing rwalk."""

    _auto_adapt = True

    def __init__(self):
        super().__init__()
        self.adapted = 0

    def adaptation(self, experience):
        self.adapted += 1

    def forward(self, x, task_labels):
        return x + task_labels[:, None]

    def forward_single_task(self, x, task_label):
        return x + task_label


class Steps(MultiTaskModule):
    """Tasks of different widths."""

    def forward_single_task(self, x, task_label):
        return x[:, : task_label + 1] + task_label


def test_modules_adapt_from_the_outside_in_once_each_wherever_they_are():
    log, arriving = [], experience(0)
    shared = Noting("shared", log)
    inner = Noting("inner", log, nn.Sequential(shared))
    model = nn.ModuleDict({"a": nn.Sequential(nn.Linear(2, 2), Noting("outer", log, inner)), "b": shared})
    adapt(model, arriving)
    assert log == [("outer", arriving, True), ("inner", arriving, True), ("shared", arriving, True)]


def test_one_that_is_adapted_by_the_module_around_it_is_left_out_with_all_inside_unless_it_is_the_model():
    log = []
    inner = Noting("inner", log)
    module = Noting("by others", log, inner, auto_adapt=False)
    adapt(nn.Sequential(module), None)
    assert log == []
    adapt(module, None)
    assert [name for name, *_ in log] == ["by others", "inner"]


def test_a_model_without_dynamic_modules_has_nothing_to_adapt():
    assert not is_dynamic(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))
    assert is_dynamic(nn.Sequential(nn.Sequential(IncrementalClassifier(2))))

    class NamesakeOnly(nn.Module):
        def adaptation(self):
            raise AssertionError("not of this protocol")

    adapt(nn.Sequential(NamesakeOnly()), None)


@pytest.mark.parametrize(
    "wrap", [DataParallel, lambda model: torch.compile(model, backend="eager")], ids=["DataParallel", "compile"]
)
def test_wrappers_are_looked_through_and_adapt_nothing_twice(wrap):
    log = []
    adapt(wrap(Noting("head", log, auto_adapt=False)), None)
    assert len(log) == 1
    adapt(nn.Sequential(wrap(Noting("head", log))), None)
    assert len(log) == 2


def test_modules_of_the_foreign_protocol_adapt_and_get_labels():
    foreign = Foreign()
    adapt(nn.Sequential(foreign), None)
    assert foreign.adapted == 1
    assert ModelCall(foreign)(torch.zeros(2, 1), torch.tensor([3, 4])).flatten().tolist() == [3.0, 4.0]


def test_tasks_of_different_widths_are_filled_up_to_the_widest():
    x, tasks = torch.zeros(3, 3), torch.tensor([2, 0, 1])
    low = torch.finfo(torch.float32).min
    assert Steps()(x, tasks).tolist() == [[2, 2, 2], [0, low, low], [1, 1, low]]


def test_a_task_module_that_says_nothing_of_a_task_is_named():
    class Forgetful(MultiTaskModule): ...

    with pytest.raises(NotImplementedError, match="Forgetful implements neither forward_single_task nor forward"):
        Forgetful()(torch.zeros(1, 1), 0)


@pytest.fixture
def multi():
    torch.manual_seed(0)
    head = MultiHeadClassifier(4)
    for task, classes in enumerate([(0, 1), (2, 3)]):
        head.adaptation(experience(*classes, task=task))
    return head


class Holding(nn.Module):
    """A user's model that knows nothing of tasks."""

    def __init__(self, head):
        super().__init__()
        self.body, self.head = nn.Linear(4, 4), head

    def forward(self, x):
        return self.head(self.body(x))


@pytest.mark.parametrize("build", [lambda head: nn.Sequential(nn.Linear(4, 4), head), Holding])
def test_labels_reach_a_module_inside_a_model_that_takes_none(build, multi):
    model, x, tasks = build(multi), features(5, 4), torch.tensor([0, 1, 1, 0, 1])
    body = model[0] if isinstance(model, nn.Sequential) else model.body
    assert torch.equal(ModelCall(model)(x, tasks), multi(body(x), tasks))


def test_labels_do_not_outlast_the_call_even_if_it_fails(multi):
    model = nn.Sequential(nn.Linear(4, 4), multi)
    ModelCall(model)(features(2, 4), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="no head for task 5"):
        ModelCall(model)(features(2, 4), torch.tensor([5, 5]))
    with pytest.raises(ValueError, match="got no task labels"):
        model(features(2, 4))


def test_labels_for_another_number_of_samples_are_refused_inside_a_model_too(multi):
    with pytest.raises(ValueError, match="one task label for each of 2 samples"):
        ModelCall(nn.Sequential(nn.Linear(4, 4), multi))(features(2, 4), torch.tensor([0, 1, 1]))


def test_a_model_that_takes_no_labels_is_called_without():
    layer, x = nn.Linear(4, 2), features(3, 4)
    assert torch.equal(ModelCall(layer)(x, torch.zeros(3)), layer(x))


def test_replicas_of_a_model_that_is_told_its_labels_are_refused(multi):
    with pytest.raises(RWalkError, match="DataParallel splits a batch, but not the task labels"):
        ModelCall(DataParallel(nn.Sequential(nn.Linear(4, 4), multi)))(features(2, 4), torch.tensor([0, 1]))


def test_one_of_torchs_layers_gets_the_only_entry_of_a_mapping_and_a_users_model_the_mapping():
    x, layer = features(2, 4), nn.Linear(4, 1)
    assert torch.equal(ModelCall(nn.Sequential(layer))({"ids": x}, None), layer(x))

    class OfMappings(nn.Module):
        def forward(self, batch):
            return batch["ids"]

    assert ModelCall(OfMappings())({"ids": x}, None) is x
    with pytest.raises(TypeError):
        ModelCall(layer)({"ids": x, "mask": x}, None)
