"""Every door, in every precision it offers, with and without accumulation, gives what a plain loop gives."""

import pytest

from contracts.comparison import worst
from contracts.doors import all_doors
from contracts.doors_plain import loop
from contracts.problem import Problem

# A door takes the same operations as the plain loop in the same precision, so that precision makes no difference here:
# what is left is the order in which a framework scales the loss and sums batches, in float32.
TOLERANCE = {"float32": 1e-5, "bf16": 1e-5, "fp16": 1e-5}

CASES = [
    (name, precision, accumulation)
    for name, door in all_doors().items()
    for precision in door.precisions
    for accumulation in door.accumulations
]


@pytest.mark.parametrize("optimizer_name", ["sgd", "adam"])
@pytest.mark.parametrize(("name", "precision", "accumulation"), CASES)
def test_a_door_gives_what_a_plain_loop_gives(name, precision, accumulation, optimizer_name, caplog):
    caplog.set_level("INFO", logger="rwalk.core.steps")
    problem = Problem(optimizer_name)
    outcome = all_doors()[name].run(problem, precision, accumulation)
    assert worst(outcome, loop(problem, precision, accumulation)) <= TOLERANCE[precision]
    assert not [record for record in caplog.records if record.name == "rwalk.core.steps"]  # no step was dropped
