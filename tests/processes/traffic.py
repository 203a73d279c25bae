"""Scenarios: what goes from process to process, as gloo itself reports it to torch's profiler."""

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch.profiler import ProfilerActivity, profile

from processes.problem import Case, Run, settings

Traffic = dict[str, int]

#: Seconds in which gloo's threads tell the profiler that the last operation has ended: they may do so after they let
#: the waiting process go on. A process was once aborted by malloc after a profiler that ended at once; why is unknown.
SETTLED = 0.2


def sent(action: Callable[[], Any]) -> Traffic:
    """How often each operation ran, with the shape of what it sent."""
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as record:
        action()
        time.sleep(SETTLED)
    names = [f"{event.name} {event.input_shapes}" for event in record.events() if event.name.startswith("gloo:")]
    return dict(Counter(names))


def stepped(run: Run) -> Traffic:
    """Four steps, and what each process had to say of the last one."""
    return sent(lambda: (run.train(0, stop=4), run.rwalk and run.rwalk.steps))


def ddp(folder: Path) -> dict[str, Traffic]:
    """Two tasks and all that RWalk can be asked for; then the same tasks without it."""
    protected, plain = (Run(Case(settings(damping_scale="relative")), "ddp", protected=p) for p in (True, False))

    def everything() -> None:
        for task in range(2):
            protected.train(task)
            protected.rwalk.consolidate()
        protected.rwalk.penalty()
        protected.rwalk.importances()
        protected.rwalk.save(folder / "traffic.safetensors")
        protected.rwalk.load_state_dict(protected.rwalk.state_dict())

    return {"with": sent(everything), "without": sent(lambda: [plain.train(task) for task in range(2)])}


def fsdp(folder: Path) -> dict[str, Traffic]:
    run, plain = Run(Case(), "fsdp"), Run(Case(), "fsdp", protected=False)
    found = {"steps": stepped(run), "steps without": stepped(plain)}
    found["consolidate"] = sent(run.rwalk.consolidate)
    found["penalty"] = sent(run.rwalk.penalty)
    found["save"] = sent(lambda: run.rwalk.save(folder / "traffic.safetensors"))
    state = run.rwalk.state_dict()
    found["load"] = sent(lambda: run.rwalk.load_state_dict(state))
    relative = Run(Case(settings(damping_scale="relative")), "fsdp")
    found["steps, relative"] = stepped(relative)
    return found
