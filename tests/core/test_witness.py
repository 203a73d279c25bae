"""What is noticed of weights that something else than the optimizer moves."""

import copy

import pytest
import torch
from torch import nn

from rwalk.core.buckets import Bucket
from rwalk.core.parts import Part, Watched
from rwalk.core.witness import Witness

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def watched(*parameters):
    entries = [Watched(f"p{index}", nn.Parameter(tensor), 0) for index, tensor in enumerate(parameters)]
    parts = [Part(Bucket(torch.device("cpu"), torch.float32, {}), entries)]
    witness = Witness()
    witness.look(parts)
    return witness, entries, parts


def random(*shape, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_move_of_all_weights_is_seen_and_that_they_are_back(dtype):
    witness, entries, parts = watched(random(30, 7, dtype=dtype), random(5, dtype=dtype), random(1, dtype=dtype))
    assert not witness.sees_a_move()
    own = [entry.parameter.detach().clone() for entry in entries]
    with torch.no_grad():
        for entry in entries:
            entry.parameter.mul_(1.5)
    assert witness.sees_a_move()
    for entry, values in zip(entries, own, strict=True):
        entry.parameter.data = values
    if dtype is not torch.float16:  # whose elements are not read: counters tell, and they do not go back
        assert not witness.sees_a_move()
    witness.look(parts)
    assert not witness.sees_a_move()


def test_weights_that_were_put_back_may_have_been_rounded():
    witness, entries, _ = watched(random(50))
    with torch.no_grad():
        for _ in range(3):
            entries[0].parameter.mul_(1.1).div_(1.1)
    assert not torch.equal(entries[0].parameter, random(50))
    assert not witness.sees_a_move()
    with torch.no_grad():
        entries[0].parameter.mul_(1.0001)
    assert witness.sees_a_move()


@pytest.mark.parametrize("moved", [lambda p: p.add_(1.0), lambda p: p[:1].add_(1.0), lambda p: p.copy_(p.clone())])
def test_where_elements_are_not_read_torchs_counters_tell(moved):
    witness, entries, _ = watched(random(4, 3).T)
    assert not witness.sees_a_move()
    with torch.no_grad():
        moved(entries[0].parameter)
    assert witness.sees_a_move()


@pytest.mark.parametrize("values", [torch.zeros(2), torch.zeros(0), torch.zeros(900, dtype=torch.bfloat16)])
def test_other_memory_is_a_move(values):
    witness, entries, _ = watched(random(600))
    entries[0].parameter.data = values
    assert witness.sees_a_move()


def test_another_parameter_in_its_place_is_a_move():
    witness, entries, _ = watched(random(3), random(2))
    entries[1].parameter = nn.Parameter(entries[1].parameter.detach().clone())
    assert witness.sees_a_move()


def test_a_copy_and_one_told_to_forget_see_nothing():
    witness, entries, _ = watched(random(3))
    with torch.no_grad():
        entries[0].parameter.add_(1.0)
    assert not copy.deepcopy(witness).sees_a_move()
    witness.forget()
    assert not witness.sees_a_move()
