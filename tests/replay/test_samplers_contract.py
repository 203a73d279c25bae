"""What every sampler owes the memory, whatever it prefers."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from replay.models import trained_looking
from rwalk.replay import SAMPLERS, Entropy, ExemplarMemory, MeanOfFeatures, PlaneDistance

# The network's last Linear is no classifier, and only BatchNorm, dropout and all tell eval mode from train mode.
OBJECTS = {
    "plane-distance": PlaneDistance(classifier="classify"),
    "plane-distance of a layer": PlaneDistance(layer="body.1", classifier="classify"),
    "mean-of-features": MeanOfFeatures(classifier="classify"),
    "mean-of-features of a layer": MeanOfFeatures(layer="body.0"),
    "entropy": Entropy(),
    "entropy, drawn": Entropy(drawn=True),
    **{name: kind() for name, kind in SAMPLERS.items() if not kind.needs_model},
}
BY_CLASS = [name for name, sampler in OBJECTS.items() if sampler.by_class]
every = pytest.mark.parametrize("name", OBJECTS)
every_by_class = pytest.mark.parametrize("name", BY_CLASS)


def samples(labels, start=0):
    """Sample i of a stream, recognised by its last feature."""
    numbers = torch.arange(start, start + len(labels))
    x = torch.randn(len(labels), 4, generator=torch.Generator().manual_seed(start))
    x[:, 3] = numbers / 100
    return TensorDataset(x, torch.tensor(labels)), torch.tensor(labels)


def kept(memory):
    return [(round(float(x[3]) * 100), int(y), int(task)) for x, y, task in memory.samples]


def test_every_name_has_a_sampler_here():
    assert {sampler.name for sampler in OBJECTS.values()} == set(SAMPLERS)


@every
def test_samples_are_distinct_within_the_budget_and_with_their_own_label(name):
    torch.manual_seed(0)
    memory, model, offered = ExemplarMemory(total=7, sampler=OBJECTS[name]), trained_looking(), {}
    for task, labels in enumerate(([0] * 9 + [1] * 9, [1] * 4 + [2] * 20, [0] * 5)):
        dataset, y = samples(labels, start=100 * task)
        offered |= {100 * task + i: label for i, label in enumerate(labels)}
        memory.update(dataset, y, task, model=model)
        found = kept(memory)
        assert len(found) == len(memory) == sum(memory.counts.values()) == 7
        assert len({number for number, *_ in found}) == 7
        assert all(offered[number] == label for number, label, _ in found)
        assert all(number // 100 == origin for number, _, origin in found)
        if memory.sampler.by_class:
            assert all(count == memory.budget(label) for label, count in memory.counts.items())


@every_by_class
def test_a_class_smaller_than_its_budget_is_kept_whole(name):
    memory = ExemplarMemory(per_class=5, sampler=OBJECTS[name])
    memory.update(*samples([0, 1, 1, 0, 0] + [2] * 9), model=trained_looking())
    assert memory.counts == {0: 3, 1: 2, 2: 5}
    assert {number for number, label, _ in kept(memory) if label < 2} == set(range(5))


@every_by_class
def test_when_others_join_the_first_of_the_ranking_stay_in_order(name):
    torch.manual_seed(0)
    memory, model = ExemplarMemory(total=12, sampler=OBJECTS[name]), trained_looking()
    memory.update(*samples([0] * 30), model=model)
    before = kept(memory)
    memory.update(*samples([1] * 30 + [2] * 30, start=100), model=trained_looking(seed=1))
    assert memory.counts == {0: 4, 1: 4, 2: 4}
    assert kept(memory)[:4] == before[:4]


@every
def test_the_seed_decides(name):
    found = []
    for seed in (0, 0):
        torch.manual_seed(seed)
        memory = ExemplarMemory(total=5, sampler=OBJECTS[name])
        for start in (0, 50):
            memory.update(*samples([0, 1] * 20, start), model=trained_looking())
        found.append(kept(memory))
        torch.manual_seed(99)
    assert found[0] == found[1]


@every
def test_the_model_and_its_training_go_on_as_if_nothing_had_been_looked_at(name):
    model = trained_looking()
    model(torch.randn(5, 4)).sum().backward()
    model.body[1].eval()
    state = copy.deepcopy(model.state_dict())
    gradients = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    modes = [module.training for module in model.modules()]
    ExemplarMemory(total=4, sampler=OBJECTS[name]).update(*samples([0, 1, 2] * 5), model=model)
    torch.testing.assert_close(model.state_dict(), state, rtol=0, atol=0)
    torch.testing.assert_close([p.grad for p in model.parameters()], gradients, rtol=0, atol=0)
    assert [module.training for module in model.modules()] == modes
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@every
def test_a_memory_comes_out_of_a_checkpoint_in_order_and_goes_on_alike(name, tmp_path):
    torch.manual_seed(0)
    memory, model = ExemplarMemory(total=9, sampler=OBJECTS[name]), trained_looking()
    memory.update(*samples([2] * 20 + [0] * 20), 3, model=model)
    torch.save({"memory": memory.state_dict()}, tmp_path / "checkpoint.pt")
    other = ExemplarMemory(total=9, sampler=OBJECTS[name])
    other.load_state_dict(torch.load(tmp_path / "checkpoint.pt", weights_only=True)["memory"])
    assert kept(other) == kept(memory)
    for each in (memory, other):
        torch.manual_seed(1)
        each.update(*samples([1] * 10 + [2] * 10, start=100), model=model)
    assert kept(other) == kept(memory)
    assert other.counts == memory.counts


@every
def test_data_on_disk_is_no_larger_than_what_is_kept(name, tmp_path):
    memory = ExemplarMemory(total=4, sampler=OBJECTS[name])
    x, y = torch.randn(5000, 4), torch.arange(5000) % 2
    memory.update(TensorDataset(x, y), y, model=trained_looking())
    torch.save(memory.state_dict(), tmp_path / "memory.pt")
    assert (tmp_path / "memory.pt").stat().st_size < x.numel() * 4 / 5


@every
def test_labels_may_be_numbers_or_tensors_from_one_dataset_to_the_next(name):
    torch.manual_seed(0)
    memory, model, kinds = ExemplarMemory(total=12, sampler=OBJECTS[name]), trained_looking(), set()
    for round_ in range(6):
        dataset, labels = samples([0, 1] * 6, start=20 * round_)
        numbers = [(x, int(y)) for x, y in dataset]
        memory.update(numbers if round_ % 2 else dataset, labels, model=model)
        kinds |= {type(y) for _, y, _ in memory.samples}
    assert kinds == {int, torch.Tensor}
    assert len(memory) == 12


@pytest.mark.parametrize("name", [name for name, sampler in OBJECTS.items() if sampler.needs_model])
def test_without_a_model_there_is_one_message(name):
    memory = ExemplarMemory(per_class=2, sampler=OBJECTS[name])
    with pytest.raises(ValueError, match=rf"'{memory.sampler.name}' looks at the model: give update\(.*model=model\)"):
        memory.update(*samples([0, 1]))
    assert len(memory) == 0


@pytest.mark.parametrize("name", [name for name, sampler in OBJECTS.items() if sampler.needs_model])
def test_a_diverged_model_leaves_the_memory_as_it_was(name):
    memory, model = ExemplarMemory(per_class=2, sampler=OBJECTS[name]), trained_looking()
    memory.update(*samples([0, 1] * 3), model=model)
    before = kept(memory)
    nn.init.constant_(model.body[0].bias, float("nan"))
    with pytest.raises(ValueError, match="is not finite: has the model diverged"):
        memory.update(*samples([2, 1, 0] * 3, start=50), model=model)
    assert kept(memory) == before
