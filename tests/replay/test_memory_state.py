"""What a memory and its samplers keep, and that they go on from it as if nothing had been."""

import copy
import pickle

import pytest
import torch
from torch.utils.data import TensorDataset

from rwalk.replay import SAMPLERS, ExemplarMemory, Sampler

KINDS = [name for name, kind in SAMPLERS.items() if not kind.needs_model]


def numbered(labels, start=0):
    labels = torch.tensor(labels)
    return TensorDataset(torch.arange(start, start + len(labels)).float(), labels), labels


def kept(memory):
    return [(float(x), int(y)) for x, y, _ in memory.samples]


def through_a_file(memory, path):
    torch.save(memory.state_dict(), path)
    other = ExemplarMemory(total=5, sampler=memory.sampler.name, seed=99)
    other.load_state_dict(torch.load(path, weights_only=True))
    return other


@pytest.mark.parametrize("sampler", KINDS)
def test_a_memory_with_a_seed_goes_on_alike_whatever_else_is_drawn(sampler, tmp_path):
    memory = ExemplarMemory(total=5, sampler=sampler, seed=1)
    memory.update(*numbered([0, 1] * 20))
    others = [through_a_file(memory, tmp_path / "memory.pt"), copy.deepcopy(memory), pickle.loads(pickle.dumps(memory))]
    for seed, each in enumerate([memory, *others]):
        torch.manual_seed(seed)
        each.update(*numbered([0, 2] * 20, start=100))
    assert all(kept(other) == kept(memory) for other in others)
    different = ExemplarMemory(total=5, sampler=sampler, seed=2)
    different.update(*numbered([0, 1] * 20))
    different.update(*numbered([0, 2] * 20, start=100))
    assert kept(different) != kept(memory)


def test_a_memory_with_a_seed_leaves_torchs_generator_as_it_was_also_after_an_error():
    class Broken(Sampler):
        name = "broken"

        def choose(self, candidates, budget):
            torch.rand(7)
            raise RuntimeError("no choice")

    before = torch.get_rng_state()
    memory = ExemplarMemory(total=5, seed=1)
    memory.update(*numbered([0] * 20))
    with pytest.raises(RuntimeError, match="no choice"):
        ExemplarMemory(total=5, sampler=Broken(), seed=1).update(*numbered([0] * 20))
    assert torch.equal(torch.get_rng_state(), before)
    assert kept(memory) != sorted(kept(memory))


def test_a_memory_with_a_seed_draws_something_new_each_time():
    memory = ExemplarMemory(total=40, sampler="reservoir", seed=1)
    for start in (0, 20):
        memory.update(*numbered([0] * 20, start=start))
    assert len(memory.state_dict()["keys"][None].unique()) == 40


def test_a_memory_without_a_seed_draws_from_torchs_generator():
    found = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        memory = ExemplarMemory(total=5)
        memory.update(*numbered([0] * 50))
        found.append(kept(memory))
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize(
    ("saved", "going_on", "message"), [(None, 1, "has no random .* give no"), (1, None, "give a seed")]
)
def test_a_state_with_a_generator_and_a_memory_without_one_do_not_go_together(saved, going_on, message):
    state = ExemplarMemory(total=5, seed=saved).state_dict()
    with pytest.raises(ValueError, match=message):
        ExemplarMemory(total=5, seed=going_on).load_state_dict(state)


class EveryOther(Sampler):
    """Chooses odd positions in every other call."""

    name = "every other"

    def __init__(self):
        self.odd = False

    def choose(self, candidates, budget):
        self.odd = not self.odd
        return torch.arange(int(self.odd), candidates.count, 2)[:budget]

    def state_dict(self):
        return {"odd": self.odd}

    def load_state_dict(self, state):
        self.odd = state["odd"]


def test_a_sampler_that_remembers_something_is_saved_with_the_memory():
    memory, other = (ExemplarMemory(per_class=2, sampler=EveryOther()) for _ in range(2))
    memory.update(*numbered([0] * 6))
    other.load_state_dict(memory.state_dict())
    for each in (memory, other):
        each.update(*numbered([1] * 6, start=10))
    assert kept(memory) == kept(other) == [(1.0, 0), (3.0, 0), (10.0, 1), (12.0, 1)]
    with pytest.raises(ValueError, match=r"sampler 'uniform' cannot go on from \['odd'\]"):
        ExemplarMemory(per_class=2).load_state_dict({**memory.state_dict(), "sampler": "uniform"})


def test_a_state_of_before_there_were_generators_is_taken():
    memory = ExemplarMemory(total=3)
    memory.update(*numbered([0, 1, 1]))
    state = {key: memory.state_dict()[key] for key in ("per_class", "total", "sampler", "samples")}
    other = ExemplarMemory(total=3)
    other.load_state_dict(state)
    assert kept(other) == kept(memory)
